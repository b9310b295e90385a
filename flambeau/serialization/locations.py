"""Where storages go when they are loaded: `map_location` and the devices that can be restored.

Only the CPU exists so far; a device adds itself with `register_package`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flambeau.serialization.errors import CheckpointError

__all__ = ["CallbackError", "Restore", "default_restore_location", "is_meta", "location_tag",
           "register_package", "restore_function"]

Restore = Callable[[Any, str], Any]
_DEVICES = ("device", "Device")

_packages: list[tuple[int, Callable[[Any], str | None], Callable[[Any, str], Any]]] = []


class CallbackError(Exception):
    """The user's `map_location` has failed; the error is the cause."""


def register_package(priority: int, tagger: Callable[[Any], str | None],
                     deserializer: Callable[[Any, str], Any]) -> None:
    """Add a device.

    Args:
        priority: lower ones are asked first.
        tagger: the location of a storage of this device, else None.
        deserializer: given a storage on the CPU and a location, the storage moved there; None if
            the location is another device's.
    """
    _packages.append((priority, tagger, deserializer))
    _packages.sort(key=_priority)


def _priority(package: tuple) -> int:
    return package[0]


def _cpu_tag(storage: Any) -> str | None:
    device = getattr(storage, "device", None)
    return "cpu" if device is None or str(device) == "cpu" else None


def _cpu_restore(storage: Any, location: str) -> Any:
    return storage if location == "cpu" else None


register_package(10, _cpu_tag, _cpu_restore)


def location_tag(storage: Any) -> str:
    """The location that a checkpoint notes for `storage`."""
    for _, tagger, _ in _packages:
        location = tagger(storage)
        if location:
            return location
    raise CheckpointError(f"no registered device knows the location of {storage!r}")


def default_restore_location(storage: Any, location: str) -> Any:
    """`storage` moved to `location`.

    Raises:
        CheckpointError: there is no such device here.
    """
    for _, _, deserializer in _packages:
        found = deserializer(storage, location)
        if found is not None:
            return found
    raise CheckpointError(
        f"it holds tensors that were saved on device {location!r}, which is not available here. To "
        "load them into main memory, pass map_location='cpu'"
    )


def restore_function(map_location: Any) -> Restore:
    """The function (storage, location) -> storage for a `map_location` argument.

    Args:
        map_location: None, a device or its name, a dict from saved to wanted locations, or a
            function (storage, location) that returns a storage, or None for the default.
    """
    if map_location is None:
        return default_restore_location
    if isinstance(map_location, bytes):
        map_location = map_location.decode()
    if isinstance(map_location, dict):
        def restore_by_dict(storage: Any, location: str) -> Any:
            return default_restore_location(storage, str(map_location.get(location, location)))
        return restore_by_dict
    if isinstance(map_location, str) or type(map_location).__name__ in _DEVICES:
        def restore_to_device(storage: Any, location: str) -> Any:
            return _restore_to(storage, str(map_location))
        return restore_to_device
    if not callable(map_location):
        raise TypeError("map_location must be None, a device, its name, a dict or a function, but "
                        f"got {type(map_location).__name__}")

    def restore_by_function(storage: Any, location: str) -> Any:
        try:
            found = map_location(storage, location)
        except Exception as error:
            raise CallbackError from error
        return default_restore_location(storage, location) if found is None else found
    return restore_by_function


def is_meta(map_location: Any) -> bool:
    """Whether tensors are to come without their data."""
    if not isinstance(map_location, str) and type(map_location).__name__ not in _DEVICES:
        return False
    return str(map_location).split(":")[0] == "meta"


def _restore_to(storage: Any, wanted: str) -> Any:
    if is_meta(wanted):
        return storage  # tensors are made without it
    for _, _, deserializer in _packages:
        found = deserializer(storage, wanted)
        if found is not None:
            return found
    raise CheckpointError(f"map_location={wanted!r} names a device that is not available here")
