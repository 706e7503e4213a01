"""Reading and checking the table of contents of a zip archive.

Supports what ``torch.save`` writes, Zip64 included. Encrypted entries, names that lead outside the
archive, repeated names, and entries that overlap or reach beyond the file are errors. Compressed
entries are marked and never unpacked.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from mlx_starflow.errors import CheckpointError

from .tensor_file import TensorFile

MAX_ENTRIES = 200_000
MAX_DIRECTORY_BYTES = 64 << 20
_END, _END64, _LOCATOR64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_CENTRAL, _LOCAL = b"PK\x01\x02", b"PK\x03\x04"
_FULL32 = 0xFFFFFFFF


@dataclass(frozen=True)
class ZipEntry:
    """A file in the archive: bytes [begin, end)."""

    name: str
    begin: int
    end: int
    compressed: bool = False
    crc: int = 0  # CRC-32 of the bytes; 0: unknown, since torch.save can leave it out


def read_directory(file: TensorFile) -> dict[str, ZipEntry]:
    """All entries of the archive, by name. Errors: CheckpointError."""
    return _Directory(file).read()


class _Directory:
    """Parses the central directory of an archive."""

    def __init__(self, file: TensorFile) -> None:
        self.file, self.size = file, file.size
        self.table, self.table_begin = b"", 0  # the directory, once it is found

    def bad(self, why: str) -> CheckpointError:
        return CheckpointError(f"{self.file.path}: {why}. Download the file again.")

    def unpack(self, layout: str, at: int, limit: int) -> tuple[Any, ...]:
        length = struct.calcsize(layout)
        if at < 0 or at + length > limit:
            raise self.bad("the archive's table of contents is cut off; the file is truncated")
        inside = at - self.table_begin
        if 0 <= inside and inside + length <= len(self.table):
            return struct.unpack_from(layout, self.table, inside)
        return struct.unpack(layout, self.file.read(at, at + length))

    def read(self) -> dict[str, ZipEntry]:
        count, start, length = self.locate()
        if count > MAX_ENTRIES or length > MAX_DIRECTORY_BYTES:
            raise self.bad(f"its table of contents claims {count} entries in {length} bytes")
        if start + length > self.size:
            raise self.bad("the archive's table of contents is outside the file")
        self.table, self.table_begin = self.file.read(start, start + length), start
        entries: dict[str, ZipEntry] = {}
        at = start
        for _ in range(count):
            entry, at = self.central(at, start, start + length)
            if entry.name in entries:
                raise self.bad(f"two entries are named {entry.name!r}")
            entries[entry.name] = entry
        ordered = sorted(entries.values(), key=lambda e: (e.begin, e.end))
        for before, after in zip(ordered, ordered[1:], strict=False):
            if after.begin < before.end:
                raise self.bad(f"the entries {before.name!r} and {after.name!r} overlap")
        return entries

    def locate(self) -> tuple[int, int, int]:
        """Number of entries, start and length of the central directory."""
        end = self.file.find_last(_END, max(0, self.size - 65557))
        if end < 0:
            raise self.bad("the end of the zip archive is missing; the file is truncated")
        disk, first_disk, _, count, length, start, comment = self.unpack("<4x4H2IH", end, self.size)
        if (disk or first_disk) and 0xFFFF not in (disk, first_disk):
            raise self.bad("it is one part of a multi-part archive")
        if end + 22 + comment != self.size:
            raise self.bad("bytes follow the end of the zip archive")
        if end >= 20 and self.file.read(end - 20, end - 16) == _LOCATOR64:
            (at,) = self.unpack("<8xQ4x", end - 20, self.size)
            if at + 4 > self.size or self.file.read(at, at + 4) != _END64:
                raise self.bad("the Zip64 record of the archive is missing")
            count, length, start = self.unpack("<4x28xQQQ", at, self.size)
        elif _FULL32 in (length, start) or count == 0xFFFF:
            raise self.bad("the Zip64 record of the archive is missing")
        return count, start, length

    def central(self, at: int, directory: int, limit: int) -> tuple[ZipEntry, int]:
        """The entry whose central record is at ``at``, and the offset of the next record."""
        (signature, flags, method, crc, packed, size, name_length, extra_length, comment_length) = (
            self.unpack("<4s4xHH4xIII3H", at, limit)
        )
        (offset,) = self.unpack("<I", at + 42, limit)
        if signature != _CENTRAL:
            raise self.bad("the archive's table of contents is damaged")
        name = self.name(at + 46, name_length, limit)
        extra = at + 46 + name_length
        after = extra + extra_length + comment_length
        if after > limit:
            raise self.bad("the archive's table of contents is cut off; the file is truncated")
        fields = [size, packed, offset]
        self.zip64(fields, extra, extra + extra_length)
        size, packed, offset = fields
        if flags & 0x1:
            raise self.bad(f"the entry {name!r} is encrypted")
        begin = self.data_begin(name, offset, method, directory)
        if begin + packed > directory:
            raise self.bad(f"the entry {name!r} reaches beyond the archive; it is truncated")
        compressed = method != 0 or packed != size
        return ZipEntry(name, begin, begin + packed, compressed, crc), after

    def zip64(self, fields: list[int], at: int, limit: int) -> None:
        """Replace fields with the value 0xFFFFFFFF by their 64-bit values, in place."""
        while any(f == _FULL32 for f in fields):
            kind, length = self.unpack("<HH", at, limit)
            if kind == 1:
                at += 4
                for i, value in enumerate(fields):
                    if value == _FULL32:
                        (fields[i],) = self.unpack("<Q", at, limit)
                        at += 8
                return
            at += 4 + length

    def name(self, at: int, length: int, limit: int) -> str:
        (raw,) = self.unpack(f"<{length}s", at, limit)
        try:
            name = raw.decode("utf-8")
        except UnicodeDecodeError:
            raise self.bad("an entry's name is not UTF-8") from None
        parts = name.replace("\\", "/").split("/")
        if not name or name.startswith("/") or ".." in parts or "\0" in name or ":" in parts[0]:
            raise self.bad(f"the entry name {name[:200]!r} leads outside the archive")
        return name

    def data_begin(self, name: str, offset: int, method: int, limit: int) -> int:
        """The offset of the entry's bytes. Checks that its local header agrees with the central
        one."""
        signature, local_method, name_length, extra_length = self.unpack(
            "<4s4xH16xHH", offset, limit
        )
        if signature != _LOCAL:
            raise self.bad(f"the entry {name!r} does not begin where the archive says")
        if local_method != method or self.name(offset + 30, name_length, limit) != name:
            raise self.bad(f"the entry {name!r} contradicts its own header")
        return offset + 30 + name_length + extra_length
