"""Event files: records of TensorFlow's format, each with its length and two checksums.

    8 bytes length, 4 bytes its checksum, the record, 4 bytes its checksum

Checksums are CRC-32C (Castagnoli), rotated by 15 bits, plus a constant.
"""

from __future__ import annotations

import functools
import itertools
import os
import socket
import struct
import time
import weakref
from typing import BinaryIO

from flambeau.utils.tensorboard.messages import Double, message

__all__ = ["EventFile", "event"]

_numbers = itertools.count()


@functools.cache
def _table() -> tuple[int, ...]:
    polynomial, table = 0x82F63B78, []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (polynomial if byte & 1 else 0)
        table.append(byte)
    return tuple(table)


def _checksum(data: bytes) -> bytes:
    table, crc = _table(), 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 255] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", (crc >> 15 | crc << 17) + 0xA282EAD8 & 0xFFFFFFFF)


def event(step: int | None, walltime: float | None = None, *fields: tuple) -> bytes:
    """An Event message; `fields`: what happened, such as (5, a summary)."""
    now = time.time() if walltime is None else walltime
    return message((1, Double(now)), (2, int(step) if step is not None else None), *fields)


class EventFile:
    """A new event file in a folder, which is made if it is missing.

    Args:
        max_queue: events after which the file is flushed.
        flush_secs: seconds after which it is, when something is added.
    """

    def __init__(self, folder: str, max_queue: int, flush_secs: float, suffix: str) -> None:
        os.makedirs(folder, exist_ok=True)
        name = (f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}."
                f"{os.getpid()}.{next(_numbers)}{suffix}")
        self.file: BinaryIO = open(os.path.join(folder, name), "wb")  # noqa: SIM115 - close() closes
        self.max_queue, self.flush_secs = max_queue, flush_secs
        self.waiting, self.flushed = 0, time.monotonic()
        self._finalize = weakref.finalize(self, self.file.close)
        self.add(event(None, None, (3, "brain.Event:2")))
        self.flush()

    def add(self, record: bytes) -> None:
        """Append a record.

        Raises:
            ValueError: the file is closed.
        """
        length = struct.pack("<Q", len(record))
        self.file.write(length + _checksum(length) + record + _checksum(record))
        self.waiting += 1
        if self.waiting >= self.max_queue or time.monotonic() - self.flushed > self.flush_secs:
            self.flush()

    def flush(self) -> None:
        """Let the system have all events."""
        self.file.flush()
        self.waiting, self.flushed = 0, time.monotonic()

    def close(self) -> None:
        """Flush and close."""
        self._finalize()
