"""Pickles larger than the memory: everything but the data of large arrays, which stay where they lie in the file.

A pass over the opcodes cuts out what is long. What is left, the hollow pickle, is small and goes through a restricted
unpickler; a ``StoredArray`` in it tells where the data of an array lie. Nothing is unpacked or written twice: the
pickle itself is the store, its pages are shared by all processes that read it, and no array is held in memory.
"""

from __future__ import annotations

import codecs
import io
import math
import mmap
import operator
import os
import pickle
import re
import sys
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from skelact.errors import SkelactError
from skelact.structures import Array
from skelact.unpickling import Protected, Refused, allowed, pickle_errors, plain_dtype

LONG = 1024  # bytes; data from here on stay in the file
_WINDOW = 1 << 26  # bytes of the file that are mapped at a time
_AS_THEY_ARE = "BT\x8e\x96"  # opcodes whose bytes are those of the array
_NUMERIC = "biufcSU"  # kinds of arrays whose data are plain bytes


class Unusual(Exception):  # noqa: N818
    """Honest content that can't stay in the file, such as arrays of objects."""


# --- what stands for an array -------------------------------------------------------------------------------------


@dataclass(eq=False)
class Span:
    """Long data in the file.

    Attributes:
        offset, length: in bytes.
        opcode: what they follow, which tells how they are written.
        encoded: whether the pickle turns the text into bytes, as old protocols do.
        used: whether an array took it.
    """

    __slots__ = ("encoded", "length", "offset", "opcode", "used")

    offset: int
    length: int
    opcode: str
    encoded: bool
    used: bool

    def bytes_in(self, data: bytes) -> bytes:
        """The bytes that the pickle means, from those in the file."""
        if self.opcode in "X\x8d":
            return data.decode("utf-8").encode("latin1")
        if self.opcode == "V":
            return data.decode("raw-unicode-escape").encode("latin1")
        if self.opcode == "S":
            return codecs.escape_decode(data.strip()[1:-1])[0]
        return data

    def value_in(self, data: bytes) -> bytes | bytearray | str:
        """The object that the pickle means; byte strings of Python 2 are text."""
        if self.encoded or self.opcode in "B\x8e":
            return self.bytes_in(data)
        if self.opcode == "\x96":
            return bytearray(data)
        if self.opcode in "TS":
            return self.bytes_in(data).decode("latin1")
        return data.decode("raw-unicode-escape" if self.opcode == "V" else "utf-8")


class StoredArray:
    """An array whose data lie in the file, or small ones in memory: ``StoredFile.read`` gives the array."""

    __slots__ = ("data", "dtype", "fortran", "shape")

    def __init__(
        self,
        shape: tuple[int, ...] = (0,),
        dtype: np.dtype[Any] = np.dtype("b"),  # noqa: B008
        fortran: bool = False,
        data: Span | bytes = b"",
    ) -> None:
        self.shape, self.dtype, self.fortran, self.data = shape, dtype, fortran, data

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Of the array, not of its data in the file, which may be encoded."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredArray, (self.shape, self.dtype, self.fortran, self.data)

    def to_row(self) -> tuple[Any, ...]:
        """In plain types, for one whose data lie in the file; ``from_row`` reads it back."""
        assert isinstance(self.data, Span)
        return self.shape, self.dtype.str, self.fortran, self.data.offset, self.data.length, self.data.opcode

    @classmethod
    def from_row(cls, row: tuple[Any, ...]) -> StoredArray:
        """Of ``to_row``."""
        shape, dtype, fortran, offset, length, opcode = row
        return cls(shape, np.dtype(dtype), fortran, Span(offset, length, opcode, False, True))

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Take what numpy's arrays are built from."""
        *_, shape, dtype, fortran, data = state
        if isinstance(data, list):
            raise Unusual("an array of objects")
        self.shape, self.dtype, self.fortran = tuple(map(operator.index, shape)), dtype.known(), bool(fortran)
        expected = self.nbytes
        if isinstance(data, Span):
            data.used = True
            self.data = data
            found = data.length if data.opcode in _AS_THEY_ARE else expected  # or told when it is read
        else:
            self.data = _as_bytes(data)
            found = len(self.data)
        if found != expected or min(self.shape, default=0) < 0:
            raise ValueError(f"{found} bytes for an array of {self.dtype} and shape {self.shape}")


class _StoredDtype:
    """Stands in for ``numpy.dtype``, which believes whatever flags a pickle sets."""

    def __init__(self, *arguments: Any) -> None:
        self.dtype = plain_dtype(*arguments)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, order, *parts = state
        if any(part is not None for part in parts[:3]):
            raise Unusual("an array of records")
        self.dtype = self.dtype.newbyteorder(order)

    def known(self) -> np.dtype[Any]:
        """The numeric type."""
        if self.dtype.kind not in _NUMERIC:
            raise Unusual(f"an array of {self.dtype}")
        return self.dtype


def _as_bytes(data: Any) -> bytes:
    return data.encode("latin1") if isinstance(data, str) else bytes(memoryview(data))


def _scalar(dtype: _StoredDtype, data: Any) -> Any:
    return np.frombuffer(_as_bytes(data), dtype.known(), count=1)[0]


def _from_buffer(data: Any, dtype: _StoredDtype, shape: Any, order: str, axis_order: Any = None) -> StoredArray:
    if axis_order is not None:
        raise Unusual("an array whose axes change places")
    stored = StoredArray()
    stored.__setstate__((shape if isinstance(shape, tuple) else (shape,), dtype, order == "F", data))
    return stored


def _encode(text: Any, encoding: str = "latin1") -> Any:
    if not isinstance(text, Span):
        return allowed("_codecs", "encode")(text, encoding)
    if encoding not in ("latin1", "latin-1"):
        raise Refused(f"it wants bytes in encoding {encoding!r}")
    text.encoded = True
    return text


def _reconstruct(*_: Any) -> StoredArray:
    return StoredArray()


def _refuse(*_: Any) -> None:
    raise Refused("it wants to call numpy.ndarray")


_STAND_INS: dict[str, Callable[..., Any]] = {
    "_reconstruct": _reconstruct,
    "ndarray": _refuse,
    "dtype": _StoredDtype,
    "scalar": _scalar,
    "_frombuffer": _from_buffer,
    "encode": _encode,
}


class _HollowUnpickler(pickle.Unpickler):
    """As the restricted unpickler, but nothing of numpy is called, so that the one in C is safe."""

    def __init__(self, file: BinaryIO, spans: Array) -> None:
        super().__init__(file, encoding="latin1")
        self._spans = spans.tolist()
        self.seen: list[Span] = []

    def persistent_load(self, pid: int) -> Span:
        """What was cut out; pickles with persistent ids of their own don't get here."""
        offset, length, opcode = self._spans[pid]
        span = Span(offset, length, chr(opcode), False, False)
        self.seen.append(span)
        return span

    def find_class(self, module: str, name: str) -> Any:
        found = allowed(module, name)
        if found is None:
            raise Refused(f"it wants to call {module}.{name}")
        if module.partition(".")[0] in ("numpy", "_codecs"):
            return Protected(_STAND_INS[name])
        if module.partition(".")[0] == "torch":
            raise Unusual("a tensor")
        if name == "bytearray":
            raise Unusual("an array of bytes")
        return found


# --- the file -----------------------------------------------------------------------------------------------------


class StoredFile:
    """Reads arrays where they lie. Copies in other processes open the file for themselves.

    Args:
        path: of the pickle.
        size, mtime_ns: when it was gone over; reading it after a change is an error.
    """

    def __init__(self, path: str, size: int, mtime_ns: int) -> None:
        self.path, self.size, self.mtime_ns = path, size, mtime_ns
        self._file: BinaryIO | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}

    def read(self, array: StoredArray) -> Array:
        """The array, which may be read-only.

        Raises:
            SkelactError: the file was changed since it was opened.
            ValueError: the data are not those of such an array.
        """
        data = array.data
        if isinstance(data, Span):
            data = data.bytes_in(self._read_at(data.offset, data.length))
        if len(data) != array.nbytes:
            raise ValueError(f"{len(data)} bytes for an array of {array.dtype} and shape {array.shape}")
        return np.ndarray(array.shape, array.dtype, data, order="F" if array.fortran else "C")

    def resolve(self, value: Any) -> Any:
        """A copy of plain containers with the arrays in the place of what stands for them."""
        if isinstance(value, StoredArray):
            return self.read(value).copy()
        if isinstance(value, Span):
            return value.value_in(self._read_at(value.offset, value.length))
        if isinstance(value, Mapping):
            return {self.resolve(key): self.resolve(item) for key, item in value.items()}
        if type(value) in (list, tuple):
            return type(value)(map(self.resolve, value))
        return value

    def _read_at(self, offset: int, length: int) -> bytes:
        if self._file is None:
            try:
                self._file = open(self.path, "rb", buffering=0)  # noqa: SIM115 - stays open
            except OSError as error:
                raise SkelactError(f"{self.path}: cannot be read ({error.strerror or error})") from None
        if _state(self._file) != (self.size, self.mtime_ns):
            raise SkelactError(
                f"{self.path}: expected the file as it was when it was opened, found it changed; restart"
            )
        if sys.platform == "win32":
            with open(self.path, "rb") as file:
                file.seek(offset)
                return file.read(length)
        return os.pread(self._file.fileno(), length, offset)


def load_hollow(path: str | Path) -> tuple[Any, StoredFile]:
    """Load a pickle without the data of its large arrays.

    Returns:
        The content, with a ``StoredArray`` for each array, and the file to read them from.

    Raises:
        SkelactError: as ``unpickling.load_pickle``.
        Unusual: it holds arrays that can't stay in the file.
    """
    path = Path(path).absolute()
    with pickle_errors(path), path.open("rb") as file:
        stored = StoredFile(str(path), *_state(file))
        hollow, spans = _hollow_out(file)
        unpickler = _HollowUnpickler(io.BufferedReader(io.BytesIO(hollow)), spans)
        content = unpickler.load()
        if not all(span.used for span in unpickler.seen):
            content = _with_texts(content, stored)
        return content, stored


def load_plain(path: str | Path) -> Any:
    """As ``unpickling.load_pickle`` for a file of our own, many times faster; arrays come as ``StoredArray``."""
    with pickle_errors(path), Path(path).open("rb") as file:
        return _HollowUnpickler(file, np.empty((0, 3), np.int64)).load()


def _state(file: BinaryIO) -> tuple[int, int]:
    """Size and mtime_ns: another state is another file."""
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def _with_texts(value: Any, stored: StoredFile) -> Any:
    """Put long texts back in their places; arrays stay in the file."""
    if isinstance(value, Span):
        return stored.resolve(value)
    if isinstance(value, Mapping):
        return {_with_texts(key, stored): _with_texts(item, stored) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_with_texts(item, stored) for item in value)
    return value


# --- the pass over the opcodes ------------------------------------------------------------------------------------


def _counted(length_bytes: int) -> bytes:
    """Matches a length below 256 and as many bytes."""
    high = rb"\x00" * (length_bytes - 1)
    return b"(?:" + b"|".join(re.escape(bytes([n])) + high + b".{%d}" % n for n in range(256)) + b")"


# Runs of opcodes with short arguments, by the length of the argument. Persistent ids and extension codes are none: no
# dataset has them. Objects are remembered (r, p) below number 2^24, because the unpickler in C makes room for as many.
# At most 5000 at a time, because the engine remembers each.
_SHORT_OPCODES = re.compile(
    b"(?:"
    + rb"[(012NRbade}lostu)\]\x81\x85-\x89\x8f-\x94\x97\x98]|[Khq\x80].|M..|[Jj].{4}|r.{3}\x00|G.{8}"
    + rb"|[UC\x8a\x8c]%b|[TXB\x8b]%b" % (_counted(1), _counted(4))
    + rb"|p\d{1,7}\n|[FILSVg][^\n]{0,1000}\n|[ci][^\n]{0,1000}\n[^\n]{0,1000}\n"
    + b"){0,5000}",
    re.DOTALL,
)
_LENGTH_BYTES = {**dict.fromkeys("TXB\x8b", 4), **dict.fromkeys("\x8d\x8e\x96", 8)}
_LINES = "SV"


def _hollow_out(file: BinaryIO) -> tuple[bytes, Array]:
    """Cut long data out of a pickle.

    Returns:
        The pickle with a persistent id in the place of each, and (offset, length, opcode) (N, 3) int64 of each.
    """
    hollow, spans = bytearray(), array("q")
    position = forgotten = 0
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as pages:
        size = len(pages)
        if hasattr(mmap, "MADV_SEQUENTIAL"):
            pages.madvise(mmap.MADV_SEQUENTIAL)
        while True:
            stop = _SHORT_OPCODES.match(pages, position).end()  # type: ignore[union-attr]
            hollow += pages[position:stop]
            if stop >= size:
                raise EOFError("it ends too early")
            opcode = chr(pages[stop])
            if opcode == ".":
                return bytes(hollow + b"."), np.array(spans, np.int64).reshape(-1, 3)
            if opcode == "\x95":  # a frame, whose length is no longer right; frames mean nothing
                position = stop + 9
                continue
            if opcode in _LENGTH_BYTES:
                start = stop + 1 + _LENGTH_BYTES[opcode]
                length = int.from_bytes(pages[stop + 1 : start], "little")
                position = start + length
            elif opcode in _LINES:
                start = stop + 1
                position = pages.find(b"\n", start) + 1 or size + 1
                length = position - 1 - start
            elif stop > position:
                position = stop
                continue
            elif opcode in "rp":
                raise Unusual("millions of objects")
            else:
                raise pickle.UnpicklingError(f"at byte {stop} it has {opcode!r}, which no dataset has")
            if position > size:
                raise EOFError("it ends too early")
            if length < LONG or opcode == "\x8b":  # a number stays
                hollow += pages[stop:position]
            else:
                hollow += b"J" + (len(spans) // 3).to_bytes(4, "little") + b"Q"
                spans.extend((start, length, ord(opcode)))
            if position - forgotten > _WINDOW and hasattr(mmap, "MADV_DONTNEED"):
                end = position - position % mmap.ALLOCATIONGRANULARITY
                pages.madvise(mmap.MADV_DONTNEED, forgotten, end - forgotten)
                forgotten = end
