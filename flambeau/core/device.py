"""Devices: where a tensor's memory lies, and where new tensors go."""

from __future__ import annotations

import threading

from flambeau.core.arguments import kind_of, near

__all__ = ["CHOSEN", "CPU", "META", "NO_DATA", "Device", "DeviceUnavailableError", "as_device",
           "default_device", "place", "set_default", "unavailable"]

NO_DATA = "Cannot copy out of meta tensor; no data!"

_KNOWN = ("cpu", "cuda", "meta", "mps", "xpu", "ipu", "hpu", "mtia", "privateuseone")


class DeviceUnavailableError(RuntimeError, AssertionError):
    """A device that this machine or build has not.

    PyTorch raises an AssertionError where it was built without CUDA, and a RuntimeError where there
    is no GPU: this is both.
    """


def unavailable(what: object) -> DeviceUnavailableError:
    """The error for asking for `what` (a device, a function of torch.cuda)."""
    return DeviceUnavailableError(
        f"Torch not compiled with CUDA enabled: Flambeau runs on the CPU so far, not on {what}. "
        "Use device='cpu', or choose the device by torch.cuda.is_available(), which is False here")


class Device:
    """`torch.device("cpu")`, `torch.device("cuda", 1)`, `torch.device("cuda:1")`.

    >>> torch.device("cpu")
    device(type='cpu')
    >>> torch.zeros(1).device == torch.device("cpu")
    True
    """

    __slots__ = ("type", "index")
    type: str
    index: int | None

    def __new__(cls, type: str | int | Device = "cpu", index: int | None = None):
        if isinstance(type, Device):
            return type
        if isinstance(type, int) and not isinstance(type, bool):
            index = type
            type = "cuda"
        if not isinstance(type, str):
            raise TypeError("device() received an invalid combination of arguments: expected a "
                            "string such as 'cpu', an index or a torch.device, but got "
                            f"{kind_of(type)}")
        if index is not None and index < 0:
            raise RuntimeError(f"Device index must not be negative, got {index}")
        name, _, number = type.partition(":")
        if number:
            if index is not None:
                raise RuntimeError("type (string) must not include an index because index was "
                                   f"passed explicitly: {type}")
            if not number.isdigit():
                raise RuntimeError(f"Invalid device string: '{type}'")
            index = int(number)
        if name not in _KNOWN:
            raise RuntimeError(f"Expected one of {', '.join(_KNOWN)} device type at start of "
                               f"device string: {name}{near(name, _KNOWN)}")
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
        _choice.entered.append(as_device(self))
        CHOSEN.append(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        _choice.entered.pop()
        CHOSEN.pop()


CPU = Device("cpu")
META = Device("meta")
"""Tensors with a shape, strides and a history, but without memory: nothing is computed."""


def as_device(device: Device | str | int | None) -> Device:
    """The device as the one object that layouts have for it; None is the CPU.

    Raises:
        RuntimeError: a device that this build does not run on.
    """
    if device is None or device is CPU:
        return CPU
    made = Device(device)
    if made.type == "meta":
        return META
    if made.type != "cpu":
        raise unavailable(f"'{made}'")
    return CPU


# ---------------------------------------------------------------------- where new tensors go
class _Choice(threading.local):
    """Of a thread: the devices that were entered (`with torch.device(...)`), the innermost last,
    and the one of `set_default_device`."""

    def __init__(self) -> None:
        self.entered: list[Device] = []
        self.default: Device | None = None


_choice = _Choice()

CHOSEN: list = []
"""Not empty while any thread has chosen a device for new tensors: then factories ask."""


def default_device() -> Device:
    """Where this thread makes tensors without a `device`."""
    if _choice.entered:
        return _choice.entered[-1]
    return _choice.default or CPU


def set_default(device: Device | str | int | None) -> None:
    """Make tensors without a `device` there from now on, in this thread; None: on the CPU."""
    if _choice.default is not None:
        CHOSEN.pop()
    _choice.default = None if device is None else as_device(device)
    if _choice.default is not None:
        CHOSEN.append(_choice.default)


def place(device: Device | str | int | None) -> Device:
    """Where a factory makes its tensor that was given this `device`."""
    if device is None:
        return default_device() if CHOSEN else CPU
    return as_device(device)
