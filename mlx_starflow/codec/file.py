"""The file format of a compressed picture.

    bytes  what
    3      magic "SFC"
    1      version, 2
    1      flags: bit 0: a prompt is stored; bits 4-7: the precision of the flow's matrices
    4      fingerprint of the model's weights (flow, autoencoder, text encoder)
    2      fingerprint of the arithmetic that wrote it (device, BLAS, versions), big-endian
    2      step of the quantiser in units of 1/1024, big-endian
    1      extent e: symbols are in the range -2^e ... 2^e
    1-5    seed of the quantiser's grids; then rows and columns of tokens; each a variable-length
           number
    ...    if a prompt is stored: its length, a variable-length number, and its text in UTF-8
    4      CRC-32 of everything before this field, the code and the symbols
    2      lower half of the CRC-32 of the whole file without this field
    ...    the code, to the end of the file

The reader allocates no more memory than the size of the file, and sizes and steps are checked
against the model before decoding.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np

from ..errors import CodecError
from ..exact.codec import SMALLEST_EXTENT
from ..exact.codec_cells import LARGEST_EXTENT
from .quality import UNITS

MAGIC, VERSION = b"SFC", 2
PRECISIONS = ("float32", "float16", "bfloat16", "4-bit", "8-bit", "other")
LONGEST_PROMPT = 4096  # bytes
LARGEST_FILE = 16 << 20  # bytes, far more than any picture needs
_FIXED = struct.Struct(">3sBB4sHHB")
_CHECKS = struct.Struct(">IH")
_PROMPT = 1


@dataclass(frozen=True)
class Header:
    """The header: everything before the code."""

    model: bytes  # fingerprint of the model's weights, 4 bytes
    arithmetic: int  # fingerprint of the arithmetic, 16 bits
    precision: str  # one of PRECISIONS
    step_units: int  # the step in units of 1/1024
    extent: int  # symbols are in the range -2^extent ... 2^extent
    seed: int  # of the quantiser's grids
    rows: int  # of tokens
    columns: int
    prompt: str | None = None
    symbols_check: int = 0  # CRC-32 of header, code and symbols

    @property
    def step(self) -> float:
        """The step of the quantiser, in units of the deep block's input."""
        return self.step_units / UNITS


def write(header: Header, symbols: np.ndarray, data: bytes) -> bytes:
    """The bytes of the whole file, with checksums. ``symbols`` (T, D); ``data``: their code."""
    head = _head(header)
    return with_checks(head, symbols_check(head, data, symbols), data)


def with_checks(head: bytes, check: int, data: bytes) -> bytes:
    """The bytes of a file from header, checksum of the symbols and code, with its own checksum."""
    return head + _CHECKS.pack(check, _file_check(head, check, data)) + data


def symbols_check(head: bytes, data: bytes, symbols: np.ndarray) -> int:
    """The CRC-32 of header, code and symbols."""
    return zlib.crc32(symbols.astype(">i4").tobytes(), zlib.crc32(data, zlib.crc32(head)))


def read(file: bytes) -> tuple[Header, bytes]:
    """Header and code of a file. Errors: CodecError if it is not a compressed picture or is
    damaged."""
    if len(file) > LARGEST_FILE:
        raise CodecError(
            f"This file has {len(file)} bytes; a compressed picture has at most {LARGEST_FILE}."
        )
    if not file.startswith(MAGIC):
        raise CodecError("This is not a picture compressed by mlx-starflow.")
    if len(file) < _FIXED.size + _CHECKS.size + 3:
        raise CodecError("The file is incomplete: it ends too early.")
    _, version, flags, model, arithmetic, units, extent = _FIXED.unpack_from(file)
    if version != VERSION:
        raise CodecError(f"The file has format version {version}; this program reads {VERSION}.")
    (seed, rows, columns), prompt, place = _variable_part(file, flags)
    check, file_check = _CHECKS.unpack(_taken(file, place, _CHECKS.size))
    data = file[place + _CHECKS.size :]
    if file_check != _file_check(file[:place], check, data):
        raise CodecError("The file is damaged: its checksum is wrong.")
    precision = flags >> 4
    if flags & 0b1110 or precision >= len(PRECISIONS) or not units:
        raise CodecError("This version of mlx-starflow cannot read the file; update mlx-starflow.")
    if not SMALLEST_EXTENT <= extent <= LARGEST_EXTENT:
        raise CodecError(f"The file has symbols up to 2^{extent}; it is damaged.")
    header = Header(
        model, arithmetic, PRECISIONS[precision], units, extent, seed, rows, columns, prompt, check
    )
    if _head(header) != file[:place]:
        raise CodecError("The file is damaged: its header is malformed.")
    return header, data


def header_end(file: bytes) -> int:
    """The offset of the checksums. Errors: CodecError."""
    return _variable_part(file, _taken(file, 0, _FIXED.size)[4])[2]


def _variable_part(file: bytes, flags: int) -> tuple[tuple[int, int, int], str | None, int]:
    """Seed, rows and columns; the prompt or None; the offset after them."""
    seed, place = _number(file, _FIXED.size)
    rows, place = _number(file, place)
    columns, place = _number(file, place)
    if not flags & _PROMPT:
        return (seed, rows, columns), None, place
    length, place = _number(file, place)
    if length > LONGEST_PROMPT:
        raise CodecError(f"The file is damaged: its prompt would have {length} bytes.")
    try:
        prompt = _taken(file, place, length).decode()
    except UnicodeDecodeError:
        raise CodecError("The prompt in the file is not text; the file is damaged.") from None
    return (seed, rows, columns), prompt, place + length


def matches(header: Header, data: bytes, symbols: np.ndarray) -> bool:
    """Whether decoded symbols have the checksum in the header."""
    head = _head(header)
    return header.symbols_check == symbols_check(head, data, symbols)


def _head(header: Header) -> bytes:
    flags = PRECISIONS.index(header.precision) << 4
    text = b""
    if header.prompt is not None:
        flags |= _PROMPT
        prompt = header.prompt.encode()
        text = _variable(len(prompt)) + prompt
    fixed = _FIXED.pack(
        MAGIC, VERSION, flags, header.model, header.arithmetic, header.step_units, header.extent
    )
    numbers = _variable(header.seed) + _variable(header.rows) + _variable(header.columns)
    return fixed + numbers + text


def _file_check(head: bytes, check: int, data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(struct.pack(">I", check), zlib.crc32(head))) & 0xFFFF


def _variable(number: int) -> bytes:
    """A variable-length number: 7 bits per byte, lowest first; the highest bit of a byte is set if
    another byte follows."""
    parts = bytearray()
    while number >= 0x80:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def _number(file: bytes, place: int) -> tuple[int, int]:
    number = 0
    for i in range(5):
        (byte,) = _taken(file, place + i, 1)
        number |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return number, place + i + 1
    raise CodecError("The file is damaged: a number in its header is too long.")


def _taken(file: bytes, place: int, length: int) -> bytes:
    part = file[place : place + length]
    if len(part) < length:
        raise CodecError("The file is incomplete: it ends too early.")
    return part
