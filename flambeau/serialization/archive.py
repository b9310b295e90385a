"""The container of a checkpoint: a zip file of uncompressed records, each aligned to 64 bytes.

The layout is byte for byte the one that PyTorch computes offsets from: a padded local header
without sizes, the data, then a data descriptor unless the record is empty. Reading trusts nothing:
each record must lie inside the file, none may overlap, and checksums are compared.
"""

from __future__ import annotations

import dataclasses
import io
import os
import struct
import zipfile
import zlib
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO

from flambeau.core.config import available_threads
from flambeau.serialization.errors import CheckpointError, CorruptError, TruncatedError

__all__ = ["ALIGNMENT", "ArchiveReader", "ArchiveWriter", "Record", "crc32_of", "is_zip"]

ALIGNMENT = 64
_CHUNK = 8 << 20  # bytes read or written at a time, so that the checksum finds them in the cache
_MOST_EXPANSION = 100  # a compressed record may grow this many times
_LIMIT32 = 0xFFFFFFFF
_LIMIT16 = 0xFFFF
_FLAGS = 0x0800  # names are UTF-8
_DESCRIPTOR = 0x0008  # sizes and checksum follow the data


@dataclasses.dataclass(frozen=True)
class Record:
    """Where a record lies: `size` bytes at `offset` of the file, or a compressed one."""

    name: str
    offset: int
    size: int
    crc: int
    info: zipfile.ZipInfo

    @property
    def compressed(self) -> bool:
        return self.info.compress_type != zipfile.ZIP_STORED


def crc32_of(data: memoryview | bytes) -> int:
    """CRC-32 of any number of bytes, in pieces that fit the cache."""
    view = memoryview(data)
    crc = 0
    for start in range(0, len(view), _CHUNK):
        crc = zlib.crc32(view[start:start + _CHUNK], crc)
    return crc


def is_zip(file: BinaryIO) -> bool:
    """Whether a zip archive starts at the file's position, which stays where it is."""
    start = file.tell()
    magic = file.read(4)
    file.seek(start)
    return magic == b"PK\x03\x04"


class ArchiveReader:
    """The records of a checkpoint.

    Args:
        file: seekable, at the start of the archive. It must stay open while records are read.

    Attributes:
        records: by name, without the folder that all names start with.

    Raises:
        TruncatedError: the directory at the end is missing, or data ends too early.
        CorruptError: directory and data contradict each other.
    """

    def __init__(self, file: BinaryIO):
        self.file = file
        self._pool: ThreadPoolExecutor | None = None
        self._pending: list[tuple[Record, Future[int]]] = []
        start = file.tell()
        file.seek(0, os.SEEK_END)
        self.end = file.tell()
        file.seek(start)
        self._zip = self._open(file, self.end - start)
        self.records = {}
        for info in self._zip.infolist():
            record = self._locate(info)
            if record.name in self.records:
                raise CorruptError(f"two records are called {record.name!r}")
            self.records[record.name] = record
        self._refuse_overlaps()

    @staticmethod
    def _open(file: BinaryIO, nbytes: int) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(file)
        except (zipfile.BadZipFile, ValueError, struct.error, OverflowError,
                NotImplementedError) as error:
            raise TruncatedError(
                f"the file is cut short or damaged: its {nbytes} bytes start like a checkpoint, "
                f"but do not end with a zip directory ({error}). Saving, copying or downloading it "
                "was probably interrupted; get it again"
            ) from None

    def _locate(self, info: zipfile.ZipInfo) -> Record:
        """The record's place by its local header, which must agree with the directory."""
        name = info.filename.partition("/")[2] or info.filename
        header = self._bytes_at(info.header_offset, 30, name)
        if header[:4] != b"PK\x03\x04":
            raise CorruptError(f"record {name!r} does not start where the zip directory says")
        name_length, extra_length = struct.unpack_from("<HH", header, 26)
        offset = info.header_offset + 30 + name_length + extra_length
        stored = info.compress_type == zipfile.ZIP_STORED
        if stored and info.compress_size != info.file_size:
            raise CorruptError(f"record {name!r} has two different sizes")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise CheckpointError(f"record {name!r} is compressed by method {info.compress_type}, "
                                  "and only deflate is known; pack the archive again (zip -0)")
        if info.flag_bits & 1:
            raise CheckpointError(f"record {name!r} is encrypted; decrypt the archive first")
        if offset + info.compress_size > self.end:
            raise TruncatedError(
                f"record {name!r} should end at byte {offset + info.compress_size}, but the file "
                f"ends at {self.end}; get the file again"
            )
        if info.file_size > _MOST_EXPANSION * info.compress_size + 4096:
            raise CorruptError(
                f"record {name!r} would grow from {info.compress_size} to {info.file_size} bytes, "
                "which looks like a decompression bomb. If you trust it, unpack the archive and "
                "pack it again without compression (zip -0)"
            )
        return Record(name, offset, info.file_size, info.CRC, info)

    def _bytes_at(self, offset: int, count: int, name: str) -> bytes:
        if not 0 <= offset <= self.end - count:
            raise TruncatedError(f"record {name!r} lies outside the file; get the file again")
        self.file.seek(offset)
        return self.file.read(count)

    def _refuse_overlaps(self) -> None:
        """No two records may share bytes: overlapping ones make a small file load as a huge one."""
        end, last = 0, ""
        for record in sorted(self.records.values(), key=_header_offset):
            if record.info.header_offset < end:
                raise CorruptError(f"records {last!r} and {record.name!r} overlap")
            end, last = record.offset + record.info.compress_size, record.name

    def __contains__(self, name: str) -> bool:
        return name in self.records

    def find(self, name: str) -> Record:
        """The record called `name`."""
        if name not in self.records:
            raise CorruptError(f"record {name!r} is missing from the archive (it has "
                               f"{_some(self.records)}); was it repacked or edited?")
        return self.records[name]

    def read(self, name: str) -> bytes:
        """The whole record, its checksum verified."""
        record = self.find(name)
        data = bytearray(record.size)
        self.read_into(record, memoryview(data))
        self.finish()
        return bytes(data)

    def read_into(self, record: Record, out: memoryview) -> None:
        """Fill `out` from the start of the record; verify the checksum if that is all of it.

        The checksum of a large record is verified by `finish`; `out` may not change before that.
        """
        if record.compressed:
            out[:] = self._decompress(record)[:len(out)]
            return
        self.file.seek(record.offset)
        _fill(self.file, out, record.name)
        # Writers that skip the checksum (set_crc32_options(False)) store 0.
        if len(out) != record.size or record.crc == 0:
            return
        if len(out) < _CHUNK // 8:
            self._compare(record, zlib.crc32(out))
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(min(4, available_threads()))
        self._pending.append((record, self._pool.submit(crc32_of, out)))

    def finish(self) -> None:
        """Wait for the checksums of large records, which run while others are read."""
        pending, self._pending = self._pending, []
        try:
            for record, checksum in pending:
                self._compare(record, checksum.result())
        finally:
            if self._pool is not None:
                self._pool.shutdown(cancel_futures=True)
                self._pool = None

    def _compare(self, record: Record, crc: int) -> None:
        if record.crc != crc:
            raise CorruptError(
                f"record {record.name!r} is damaged: its checksum is {crc:08x} and should be "
                f"{record.crc:08x}. The file changed after it was saved; get it again"
            )

    def _decompress(self, record: Record) -> bytes:
        try:
            return self._zip.read(record.info)
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, struct.error,
                NotImplementedError) as error:
            raise CorruptError(f"record {record.name!r} cannot be decompressed: {error}") from None


def _header_offset(record: Record) -> int:
    return record.info.header_offset


def _some(names: dict) -> str:
    shown = ", ".join(list(names)[:8])
    return shown + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _fill(file: BinaryIO, out: memoryview, name: str) -> None:
    """Read exactly len(out) bytes."""
    done = 0
    while done < len(out):
        if hasattr(file, "readinto"):
            count = file.readinto(out[done:])
        else:
            data = file.read(len(out) - done)
            count = len(data)
            out[done:done + count] = data
        if not count:
            raise TruncatedError(f"record {name!r} ends too early; get the file again")
        done += count


class ArchiveWriter:
    """Writes records in order; `close` adds the directory. The file need not be seekable.

    Args:
        file: anything with `write`.
        folder: the first part of every name; PyTorch uses the file's stem.
        checksum: False stores 0 in place of each record's CRC-32.
    """

    def __init__(self, file: BinaryIO, folder: str, *, checksum: bool = True):
        self.file, self.folder, self.checksum = file, folder, checksum
        self.position = 0
        self._directory = io.BytesIO()
        self._count = 0

    @staticmethod
    def overhead(folder: str, names: list[str]) -> int:
        """At most how many bytes an archive needs beside the data."""
        per_record = [30 + 46 + 2 * len(f"{folder}/{name}".encode()) + 2 * 24 + 28 + 2 * ALIGNMENT
                      for name in names]
        return sum(per_record) + 128

    def _write(self, data: bytes | memoryview) -> None:
        self.file.write(data)
        self.position += len(data)

    def add(self, name: str, data: bytes | memoryview) -> None:
        """Append a record whose data starts at a multiple of ALIGNMENT."""
        data = memoryview(data)
        path = f"{self.folder}/{name}".encode()
        header, size = self.position, len(data)
        crc = crc32_of(data) if self.checksum else 0
        zip64 = size >= _LIMIT32 or header >= _LIMIT32
        flags = _FLAGS | (_DESCRIPTOR if size else 0)
        self._start(path, flags, _zip64_extra(size, header), zip64, 0)
        for start in range(0, size, _CHUNK):
            self._write(data[start:start + _CHUNK])
        if size:
            sizes = struct.pack("<QQ" if zip64 else "<II", size, size)
            self._write(b"PK\x07\x08" + struct.pack("<I", crc) + sizes)
        self._list(path, flags, crc, size, header, zip64)

    def skip(self, name: str, size: int) -> None:
        """Append a record of `size` bytes that are left out: a hole, if the file can have one."""
        if not size or not (hasattr(self.file, "seekable") and self.file.seekable()):
            self.add(name, bytes(size))
            return
        path = f"{self.folder}/{name}".encode()
        header = self.position
        zip64 = size >= _LIMIT32 or header >= _LIMIT32
        self._start(path, _FLAGS, _zip64_extra(size, header), zip64, min(size, _LIMIT32))
        self.file.seek(size, os.SEEK_CUR)
        self.position += size
        self._list(path, _FLAGS, 0, size, header, zip64)

    def _start(self, path: bytes, flags: int, zip64_extra: bytes, zip64: bool, size: int) -> None:
        """A local header, padded so that data starts at a multiple of ALIGNMENT."""
        extra = self._padding(len(path), zip64_extra)
        self._write(struct.pack("<4s5H3I2H", b"PK\x03\x04", 45 if zip64 else 0, flags, 0, 0, 0,
                                0, size, size, len(path), len(extra)) + path + extra)

    def _padding(self, path_length: int, zip64: bytes) -> bytes:
        """Extra fields that end at a multiple of ALIGNMENT."""
        start = self.position + 30 + path_length + len(zip64) + 4
        count = -start % ALIGNMENT
        return zip64 + b"FB" + struct.pack("<H", count) + b"Z" * count

    def _list(self, path: bytes, flags: int, crc: int, size: int, header: int,
              zip64: bool) -> None:
        extra = _zip64_extra(size, header)
        size32, header32 = min(size, _LIMIT32), min(header, _LIMIT32)
        version = 45 if zip64 else 0
        self._directory.write(
            struct.pack("<4s6H3I5H2I", b"PK\x01\x02", version, version, flags, 0, 0, 0, crc, size32,
                        size32, len(path), len(extra), 0, 0, 0, 0, header32) + path + extra)
        self._count += 1

    def close(self) -> None:
        """Write the directory: first its 64-bit end record, then the classic one."""
        start, directory = self.position, self._directory.getvalue()
        self._write(directory)
        end64 = self.position
        self._write(struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, self._count,
                                self._count, len(directory), start))
        self._write(struct.pack("<4sIQI", b"PK\x06\x07", 0, end64, 1))
        count = min(self._count, _LIMIT16)
        self._write(struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, count, count,
                                min(len(directory), _LIMIT32), min(start, _LIMIT32), 0))


def _zip64_extra(size: int, header: int) -> bytes:
    """The extra field with what does not fit 32 bits: both sizes, and the header's offset."""
    values = [size, size] if size >= _LIMIT32 else []
    values += [header] if header >= _LIMIT32 else []
    return struct.pack(f"<HH{len(values)}Q", 1, 8 * len(values), *values) if values else b""
