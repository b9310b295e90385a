"""Devices: where a tensor's memory lies."""

from __future__ import annotations

__all__ = ["Device", "CPU", "as_device"]

_KNOWN = ("cpu", "cuda", "meta", "mps", "xpu", "ipu", "hpu", "mtia", "privateuseone")


class Device:
    """`torch.device("cpu")`, `torch.device("cuda", 1)`, `torch.device("cuda:1")`."""

    __slots__ = ("type", "index")

    def __new__(cls, type: str | int | Device = "cpu", index: int | None = None):
        if isinstance(type, Device):
            return type
        if isinstance(type, int):
            type, index = "cuda", type
        name, _, number = type.partition(":")
        if number:
            if index is not None:
                raise RuntimeError("type (string) must not include an index because index was passed "
                                   f"explicitly: {type}")
            if not number.isdigit():
                raise RuntimeError(f"Invalid device string: '{type}'")
            index = int(number)
        if name not in _KNOWN:
            raise RuntimeError(f"Expected one of {', '.join(_KNOWN)} device type at start of device "
                               f"string: {name}")
        self = object.__new__(cls)
        object.__setattr__(self, "type", name)
        object.__setattr__(self, "index", index)
        return self

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"attribute '{name}' of 'torch.device' objects is not writable")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and (self.type, self.index) == (other.type, other.index)

    def __hash__(self) -> int:
        return hash((self.type, self.index))

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __repr__(self) -> str:
        index = "" if self.index is None else f", index={self.index}"
        return f"device(type='{self.type}'{index})"

    def __reduce__(self) -> tuple:
        return Device, (str(self),)

    def __enter__(self) -> Device:
        as_device(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        return None


CPU = Device("cpu")


def as_device(device: Device | str | int | None) -> Device:
    """The device as an object; None is the CPU.

    Raises:
        RuntimeError: a device that this build does not run on.
    """
    if device is None or device is CPU:
        return CPU
    made = Device(device)
    if made.type != "cpu":
        raise RuntimeError(f"Flambeau runs on the CPU so far, not on '{made}': use device='cpu', or "
                           "choose it with torch.cuda.is_available() (which is False here)")
    return CPU
