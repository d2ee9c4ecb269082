"""The directory of a zip file whose records are stored as they are, which is what `torch.save` writes.

Specification: APPNOTE.TXT 6.3.10, sections 4.3 and 4.4. Compressed and encrypted records, several disks, and
records that overlap are refused: weights must lie where they can be read in place.
"""

import struct
from dataclasses import dataclass

from namedtensor.checkpoint._blob import TRUNCATED, Blob
from namedtensor.checkpoint._reject import quoted, reject

MAGIC = b"PK\x03\x04"
_END = struct.Struct("<4sHHHHIIH")
_END64_LOCATOR = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQHHIIQQQQ")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_MAX_COMMENT = 0xFFFF
_MAX_DIRECTORY = 64 << 20


@dataclass(frozen=True, slots=True)
class Record:
    """One file inside the archive: `size` bytes somewhere between `header` and `limit`."""

    name: str
    header: int
    limit: int
    size: int

    def data_offset(self, blob: Blob) -> int:
        """Where the bytes begin, which only the record's own header tells. Raises `CheckpointError`."""
        fields = _LOCAL.unpack(blob.read(self.header, _LOCAL.size))
        signature, flags, method, name_length, extra_length = fields[0], fields[2], fields[3], fields[9], fields[10]
        start = self.header + _LOCAL.size + name_length + extra_length
        if signature != MAGIC or method != 0 or flags & 1:
            reject(blob.name, f"the header of record {quoted(self.name)} contradicts the archive's directory")
        if start + self.size > self.limit:
            reject(blob.name, f"record {quoted(self.name)} overlaps what follows it")
        name = blob.read(self.header + _LOCAL.size, name_length)
        if name != self.name.encode():
            reject(blob.name, f"record {quoted(self.name)} has another name in its own header")
        return start

    def read(self, blob: Blob) -> bytes:
        """All of its bytes. The caller bounds the size."""
        return blob.read(self.data_offset(blob), self.size)


def directory(blob: Blob) -> dict[str, Record]:
    """Records by name. Raises `CheckpointError`."""
    start, count, end = _locate(blob)
    if end - start > _MAX_DIRECTORY:
        reject(blob.name, f"the zip directory takes {end - start:,} bytes, more than {_MAX_DIRECTORY:,}")
    if count > (end - start) // _CENTRAL.size:
        reject(blob.name, f"the zip directory claims {count:,} records in {end - start:,} bytes")
    data = blob.read(start, end - start)
    found: list[tuple[str, int, int]] = []
    at = 0
    for _ in range(count):
        if at + _CENTRAL.size > len(data):
            reject(blob.name, "the zip directory ends inside a record")
        fields = _CENTRAL.unpack_from(data, at)
        flags, method, packed, size = fields[3], fields[4], fields[8], fields[9]
        name_length, extra_length, comment_length, disk, header = (*fields[10:14], fields[16])
        name_at = at + _CENTRAL.size
        extra_at = name_at + name_length
        at = extra_at + extra_length + comment_length
        if fields[0] != b"PK\x01\x02" or at > len(data):
            reject(blob.name, "the zip directory is damaged")
        try:
            name = data[name_at:extra_at].decode()
        except UnicodeDecodeError:
            reject(blob.name, "a record's name in the zip directory is not UTF-8")
        size, packed, header = _zip64(blob, name, data[extra_at : extra_at + extra_length], size, packed, header)
        if method != 0 or packed != size:
            reject(blob.name, f"record {quoted(name)} is compressed", "save it again with torch.save")
        if flags & 1 or disk not in (0, 0xFFFF):
            reject(blob.name, f"record {quoted(name)} is encrypted or on another disk")
        found.append((name, header, size))
    if at != len(data):
        reject(blob.name, f"{len(data) - at:,} bytes follow the last record of the zip directory")
    return _place(blob, found, start)


def _place(blob: Blob, found: list[tuple[str, int, int]], directory_start: int) -> dict[str, Record]:
    """Records with the bound of each, which is where the next begins."""
    found.sort(key=lambda record: record[1])
    limits = [header for _, header, _ in found[1:]] + [directory_start]
    records: dict[str, Record] = {}
    for (name, header, size), limit in zip(found, limits, strict=True):
        if header + _LOCAL.size + len(name.encode()) + size > limit:
            reject(blob.name, f"record {quoted(name)} overlaps what follows it")
        if name in records:
            reject(blob.name, f"record {quoted(name)} stands twice in the zip directory")
        records[name] = Record(name, header, limit, size)
    return records


def _locate(blob: Blob) -> tuple[int, int, int]:
    """Start of the directory, number of records in it, and its end."""
    tail_at = max(0, blob.size - _END.size - _MAX_COMMENT)
    tail = blob.read(tail_at, blob.size - tail_at)
    at = tail.rfind(b"PK\x05\x06")
    while at >= 0 and (
        at + _END.size > len(tail) or at + _END.size + int.from_bytes(tail[at + 20 : at + 22], "little") != len(tail)
    ):
        at = tail.rfind(b"PK\x05\x06", 0, at)
    if at < 0:
        reject(blob.name, "begins like a zip file and has no zip directory at its end", TRUNCATED)
    _, disk, first_disk, here, count, size, start, _ = _END.unpack_from(tail, at)
    end = tail_at + at
    # torch.save writes the 64-bit records whether or not they are needed.
    locator_at = end - _END64_LOCATOR.size
    if locator_at >= 0:
        signature, _, end64, disks = _END64_LOCATOR.unpack(blob.read(locator_at, _END64_LOCATOR.size))
        if signature == b"PK\x06\x07":
            if disks > 1 or end64 + _END64.size > locator_at:
                reject(blob.name, "the zip64 directory is damaged")
            fields = _END64.unpack(blob.read(end64, _END64.size))
            if fields[0] != b"PK\x06\x06":
                reject(blob.name, "the zip64 directory is damaged")
            disk, first_disk, here, count, size, start = fields[4:10]
            end = end64
    if disk or first_disk or here != count:
        reject(blob.name, "is one part of a zip file on several disks")
    if start + size != end:
        reject(blob.name, "the zip directory is not where its end says", TRUNCATED)
    return start, count, end


def _zip64(blob: Blob, name: str, extra: bytes, size: int, packed: int, header: int) -> tuple[int, int, int]:
    """Sizes and offset, with those that did not fit 32 bits taken from the zip64 extra field."""
    values = {"size": size, "packed": packed, "header": header}
    wide = [key for key, value in values.items() if value == 0xFFFFFFFF]
    at = 0
    while wide and at + 4 <= len(extra):
        tag, length = struct.unpack_from("<HH", extra, at)
        if tag == 1:
            if length < 8 * len(wide) or at + 4 + length > len(extra):
                break
            for index, key in enumerate(wide):
                values[key] = struct.unpack_from("<Q", extra, at + 4 + 8 * index)[0]
            return values["size"], values["packed"], values["header"]
        at += 4 + length
    if wide:
        reject(blob.name, f"the zip directory leaves out the size of record {quoted(name)}")
    return size, packed, header
