"""Read pickles from strangers without running anything in them.

A pickle is a program; loading it with ``pickle.load`` runs whatever its author wrote. Here only the few constructors
that numpy arrays, torch tensors and plain containers need may be called. Everything else is refused; but checkpoints
may hold metadata of classes that are not installed: those become empty stand-ins, nothing of them is imported.
"""

from __future__ import annotations

import io
import pickle
import re
import struct
import sys
import types
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np

from skelact.errors import SkelactError
from skelact.kinds import MODEL_SUFFIXES, PICKLE_SUFFIXES, kind_of

# What unpickling a file that is no pickle, or half of one, raises.
MALFORMED = (
    *(pickle.UnpicklingError, EOFError, ValueError, LookupError, AttributeError, TypeError, ImportError),
    *(RuntimeError, MemoryError, OverflowError, AssertionError, struct.error),
)


class Refused(pickle.UnpicklingError):
    """A pickle asks for more than data."""


class Protected:
    """A function that a pickle may call but not change: pickles can set the attributes of what they name."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)

    def __setstate__(self, state: Any) -> None:
        raise Refused(f"it wants to change {self._call.__name__}")


def _load_storage(data: bytes) -> Any:
    """Stands in for ``torch.storage._load_from_bytes``, which would unpickle ``data`` with code and all."""
    import torch

    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except MALFORMED:
        raise Refused("it holds a tensor that is none, but a pickle of its own") from None


def _latin1_bytes(text: str, encoding: str = "latin1") -> bytes:
    """Stands in for ``_codecs.encode``, by which old protocols write bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise Refused(f"it wants bytes in encoding {encoding!r}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """Stands in for ``bytes``, which old protocols call for empty ones; ``bytes(10**12)`` would fill the memory."""
    return b""


def _bytearray(data: bytes | str = b"", encoding: str = "latin1") -> bytearray:
    """Stands in for ``bytearray``, for the same reason."""
    if isinstance(data, str):
        data = _latin1_bytes(data, encoding)
    if not isinstance(data, bytes):
        raise Refused("it wants bytes from no data")
    return bytearray(data)


# Arrays are rebuilt from plain bytes and checked types. Numpy itself believes what a pickle says: of an array over
# another one's memory, of a type with false flags or offsets; the process crashes, or worse.
_NDARRAY = object()  # honest pickles only pass ``numpy.ndarray`` on to ``_reconstruct``


def _reconstruct(subtype: Any, shape: Any, typecode: Any) -> Any:
    """Stands in for numpy's constructor: an empty array, which the pickle then fills with its state."""
    if subtype is not _NDARRAY:
        raise Refused("it wants an array of another class")
    return np.empty(0, np.int8)


def plain_dtype(text: Any, align: Any = False, copy: Any = False) -> Any:
    """Stands in for ``numpy.dtype``: a code and a size, and nothing of the language that numpy reads."""
    if not isinstance(text, str) or not re.fullmatch(r"[<>=|]?[?a-zA-Z]\d{0,9}", text):
        raise Refused("it wants an array of records")
    return np.dtype(text, copy=True)


def _scalar(dtype: Any, data: Any = None) -> Any:
    """Stands in for numpy's constructor of scalars."""
    if dtype.hasobject:
        return data
    return np.frombuffer(data.encode("latin1") if isinstance(data, str) else data, dtype, 1)[0]


def _check_state(target: Any, state: Any) -> None:
    """Refuse a state that would have numpy misread memory."""
    if isinstance(target, np.dtype):
        _, _, subdtype, names, fields, size, _, flags, *_ = state
        if subdtype or names or fields or size not in (-1, target.itemsize) or flags != target.flags:
            raise Refused(f"it wants a changed data type {target}")
    elif isinstance(target, np.ndarray) and target.shape != (0,):
        raise Refused("it wants to change an array")


_CONTAINERS = {
    "list": list,
    "dict": dict,
    "set": set,
    "frozenset": frozenset,
    "tuple": tuple,
    "complex": complex,
}
_NUMPY_MODULES = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")
_NUMPY_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")
_TORCH_REBUILD = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter")


def allowed(module: str, name: str) -> Any:
    """What a pickle may call by this name, or None."""
    if module in ("builtins", "__builtin__"):
        if name in ("bytes", "bytearray"):
            return Protected(_no_bytes if name == "bytes" else _bytearray)
        return _CONTAINERS.get(name)
    if module == "collections":
        # A Counter becomes a dict: it is a Python class, whose attributes a pickle could set.
        return {"OrderedDict": OrderedDict, "defaultdict": defaultdict, "Counter": dict}.get(name)
    if module == "_codecs" and name == "encode":
        return Protected(_latin1_bytes)
    if module in _NUMPY_MODULES:
        if name == "ndarray":
            return _NDARRAY
        rebuild: dict[str, Callable[..., Any]] = {"dtype": plain_dtype, "_reconstruct": _reconstruct, "scalar": _scalar}
        return Protected(rebuild[name]) if name in rebuild else None
    if module in _NUMPY_NUMERIC and name == "_frombuffer":
        return Protected(_array_from_buffer)
    if module == "torch.storage" and name == "_load_from_bytes":
        return Protected(_load_storage)
    if module == "torch._utils" and name in _TORCH_REBUILD:
        import torch

        return Protected(getattr(torch._utils, name))
    return None


def _array_from_buffer(buffer: Any, dtype: Any, shape: Any, order: Any, axis_order: Any = None) -> Any:
    """Stands in for numpy's protocol-5 constructor; ``axis_order`` is that of a transposed array."""
    if not isinstance(buffer, bytes | bytearray):
        raise Refused("it wants an array over another object's memory")
    array = np.frombuffer(bytearray(buffer), dtype=dtype)
    if order == "K" and axis_order is not None:
        return array.reshape(shape).transpose(axis_order)
    return array.reshape(shape, order=order)


# Python's own and not the faster one in C, which fills objects with their state without asking.
_PythonUnpickler: Any = pickle._Unpickler


class _Unpickler(_PythonUnpickler):
    """Arrays, tensors and plain containers."""

    dispatch: ClassVar[dict[int, Any]] = dict(_PythonUnpickler.dispatch)

    def load_build(self) -> None:
        """Let the pickle give the object on top of the stack its state."""
        _check_state(self.stack[-2], self.stack[-1])
        super().load_build()

    dispatch[pickle.BUILD[0]] = load_build

    def find_class(self, module: str, name: str) -> Any:
        found = allowed(module, name)
        if found is None:
            raise Refused(f"it wants to call {module}.{name}")
        return found


def load_pickle(path: str | Path) -> Any:
    """Load a pickle of numpy arrays, torch tensors and plain containers, of any protocol and of Python 2 too.

    Raises:
        SkelactError: it is missing, truncated, no pickle, or holds anything else; nothing of it was run.
    """
    with pickle_errors(path), Path(path).open("rb") as file:
        return restricted_load(file)


@contextmanager
def pickle_errors(path: str | Path) -> Iterator[None]:
    """Tell whatever unpickling raises in one line.

    Raises:
        SkelactError: in its place.
    """
    try:
        yield
    except FileNotFoundError:
        raise SkelactError(f"{path}: no such file") from None
    except OSError as error:
        if Path(path).is_dir():
            raise SkelactError(f"{path}: expected a pickle, found {kind_of(path)}") from None
        raise SkelactError(f"{path}: cannot be read ({error.strerror or error})") from None
    except Refused as error:
        raise SkelactError(
            f"{path}: refused, nothing was run: expected arrays and plain containers, but {_in_one_line(error)}"
        ) from None
    except MALFORMED as error:
        other = f"another or a damaged file ({type(error).__name__}: {_in_one_line(error)})"
        found = kind_of(path, PICKLE_SUFFIXES) or other
        raise SkelactError(f"{path}: expected a pickle, found {found}") from None


def _in_one_line(error: Exception) -> str:
    """Its message; some quote the file, line breaks and all."""
    return " ".join(str(error).split())


def restricted_load(file: BinaryIO) -> Any:
    """``load_pickle`` for an open file; raises whatever ``pickle`` raises."""
    # latin1 turns the byte strings of Python 2 into arrays' data and into str alike.
    return _Unpickler(file, encoding="latin1").load()


# --- checkpoints -------------------------------------------------------------------------------------------------

# Parts of the standard library and of numpy that turn up in honest metadata. They get stand-ins like all the rest.
_HARMLESS = re.compile(
    r"(datetime|pathlib(\._local)?|decimal|fractions|uuid)\.\w+|argparse\.Namespace|types\.SimpleNamespace"
    r"|(copyreg|copy_reg)\._reconstructor|(builtins|__builtin__)\.(object|slice|range)|numpy\.dtypes\.\w+"
)


class _CheckpointUnpickler(_Unpickler):
    """As above, and what torch's own files need; objects of unknown classes become stand-ins."""

    def find_class(self, module: str, name: str) -> Any:
        found = allowed(module, name)
        full_name = f"{module}.{name}"
        if found is not None:
            return found
        if module == "torch":
            import torch

            plain = getattr(torch, name, None)
            if isinstance(plain, torch.dtype) or name in ("Size", "device"):
                return plain
        # Torch, numpy and the standard library hold functions worth attacking: a file that names one is hostile or,
        # where it names modules of torch.nn, no state dict.
        if _HARMLESS.fullmatch(full_name) or module.partition(".")[0] not in {
            *sys.stdlib_module_names,
            *("torch", "numpy", "__builtin__"),
        }:
            return type("StandIn", (_StandIn,), {"__doc__": f"Stands for {full_name}."})
        if full_name in ("builtins.getattr", "__builtin__.getattr"):
            return Protected(_attribute_of_stand_in)
        raise Refused(f"it wants to call {full_name}")


class _StandIn:
    """Takes the place of an object whose class is not to be run; swallows whatever it is built from."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _StandIn:
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def append(self, item: Any) -> None:
        """For classes derived from list."""

    extend = append


def _attribute_of_stand_in(owner: Any, name: str) -> _StandIn:
    """What ``getattr`` gives of an object that is not there: mmengine's history buffers name their methods so."""
    if isinstance(owner, _StandIn) or (isinstance(owner, type) and issubclass(owner, _StandIn)):
        return _StandIn()
    raise Refused("it wants to call getattr")


def load_torch(path: Path) -> Any:
    """Load what ``torch.save`` wrote (today's zip or the older format), without running anything in it.

    Torch's own ``weights_only`` loader can't skip objects of unknown classes; torch with our unpickler can.

    Raises:
        SkelactError: the file is no checkpoint, is damaged, or asks for more than weights and plain metadata.
    """
    import torch

    restricted = types.ModuleType("restricted_pickle")
    restricted.__dict__.update(Unpickler=_CheckpointUnpickler, load=_load_checkpoint_pickle)
    try:
        # From memory, for torch unpacks an archive (its oldest format) when it is given a real file, links and
        # permissions included, and has other loaders for other suffixes.
        file = io.BytesIO(path.read_bytes())
        if _is_torchscript(file):
            raise SkelactError(f"{path}: expected a checkpoint with a state dict, found a TorchScript program")
        return torch.load(file, map_location="cpu", pickle_module=restricted, weights_only=False)
    except Refused as error:
        raise SkelactError(
            f"{path}: refused, nothing was run: expected weights and plain metadata, but {error}; "
            "if you trust its author, let them save the state dict alone"
        ) from None
    except OSError as error:
        raise SkelactError(f"{path}: cannot be read ({error.strerror or error})") from None
    except MALFORMED:
        found = kind_of(path, MODEL_SUFFIXES) or "another or a damaged file"
        raise SkelactError(f"{path}: expected a checkpoint of skelact, mmaction2 or PYSKL, found {found}") from None


def _is_torchscript(file: io.BytesIO) -> bool:
    """Whether torch would run it as a program. Torch's own reader decides: another may see other members."""
    import torch

    if file.getbuffer()[:4] != b"PK\x03\x04":
        return False
    members = torch._C.PyTorchFileReader(file).get_all_records()
    file.seek(0)
    return "constants.pkl" in members


def _load_checkpoint_pickle(file: BinaryIO, **options: Any) -> Any:
    return _CheckpointUnpickler(file, **options).load()
