"""Look at a TorchScript archive before torch runs it.

The archive is a zip file with a program, pickles and tensors, and torch's own reader trusts all three. So none but the
shape that ``export`` writes is let through: a frozen network, which is one class with one straight-line method that
calls operators on tensors and nothing else, and constants that lie within their storages.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
from collections import OrderedDict
from typing import Any

from skelact.unpickling import MALFORMED, Refused

# What a traced ST-GCN++ calls, and what it may call when written a little differently.
OPERATORS = frozenset(
    {
        *("torch._convolution", "torch.conv1d", "torch.conv2d", "torch.linear", "torch.matmul", "torch.addmm"),
        *("torch.bmm", "torch.baddbmm", "torch.expand", "torch.add_", "torch.relu_", "torch.clamp_", "torch.clamp"),
        *("torch.einsum", "torch.batch_norm", "torch.relu", "torch.max_pool2d", "torch.mean", "torch.add", "torch.mul"),
        *("torch.cat", "torch.split_with_sizes", "torch.split", "torch.chunk", "torch.select", "torch.slice"),
        *("torch.size", "torch.view", "torch.reshape", "torch.permute", "torch.transpose", "torch.t", "torch.stack"),
        *("torch.flatten", "torch.unsqueeze", "torch.squeeze", "torch.contiguous", "ops.prim.NumToTensor", "int"),
        "torch.sub",
    }
)
# Nothing here can be read in two ways: no comments, no escapes, spaces only after commas.
_NAME = r"[A-Za-z_]\w*"
_PATH = rf"{_NAME}(?:\.{_NAME})*"
_EXPRESSION = r'(?:, ?|[\w.\[\]()-]|"[\w,> -]+")+'
_PROGRAM = re.compile(
    rf"class {_NAME}\(Module\):\n"
    r"  __parameters__ = \[\]\n"
    r"  __buffers__ = \[\]\n"
    rf"  def forward\(self: {_PATH},\n"
    rf"    {_NAME}: Tensor\) -> Tensor:\n"
    rf"(?:    (?:{_NAME} = |(?:{_NAME}, )+= ){_EXPRESSION}\n)*"
    rf"    return {_EXPRESSION}\n*",
    re.ASCII,
)
_CALL = re.compile(rf"({_PATH}|[\])\d\"])\(", re.ASCII)

_RECORDS = re.compile(
    r"code/__torch__/skelact(?:/\w+)*\.py(?:\.debug_pkl)?|data\.pkl|constants\.pkl|constants/\d+|extra/\w+"
    r"|version|byteorder|\.data/serialization_id|\.format_version|\.storage_alignment",
    re.ASCII,
)
# One object without state, of the program's class.
_OBJECT = re.compile(rb"\x80\x02c__torch__\.skelact[\w.]*\n\w+\nq\x00\)\x81}\(ubq\x01\.")
_OPCODES = frozenset(
    {
        *("PROTO", "STOP", "MARK", "GLOBAL", "REDUCE", "BINPERSID", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"),
        *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "APPENDS", "NEWFALSE"),
        *("BININT", "BININT1", "BININT2", "BINUNICODE"),
    }
)


def check_program(content: bytes) -> None:
    """Refuse an archive that is anything but a frozen network.

    Args:
        content: of the file.

    Raises:
        Refused: it asks for more; nothing of it was run.
    """
    import torch

    # A zip file of which torch sees a FlatBuffer is read in another way.
    if content[:4] != b"PK\x03\x04" or content[4:8] == b"PTMF":
        raise Refused("it is no zip archive")
    try:
        # Torch's own reader: another may see other members.
        reader = torch._C.PyTorchFileReader(io.BytesIO(content))
        names = reader.get_all_records()
        _check_names(names)
        records = {name: reader.get_record(name) for name in names}
        for name, record in records.items():
            _check_record(name, record, records)
    except Refused:
        raise
    except MALFORMED as error:
        raise Refused(f"it is damaged ({type(error).__name__})") from None


def _check_names(names: list[str]) -> None:
    strangers = sorted(name for name in names if not _RECORDS.fullmatch(name))
    if strangers:
        raise Refused(f"it holds {strangers[0]!r}")
    if len({name.lower() for name in names}) < len(names):  # torch's reader takes upper case for lower
        raise Refused("it holds two members of one name")
    if sum(name.endswith(".py") for name in names) != 1:
        raise Refused("it holds more than one program, or none")


def _check_record(name: str, record: bytes, records: dict[str, bytes]) -> None:
    if name.endswith(".py"):
        _check_code(record.decode("ascii"))
    elif name == "data.pkl" and not _OBJECT.fullmatch(record):
        raise Refused("its network is more than a program")
    elif name == "constants.pkl":
        _Constants(record, records).load()
    elif name.endswith(".debug_pkl"):
        _Names(record).load()


def _check_code(text: str) -> None:
    called = {match[1] for match in _CALL.finditer(text.partition("-> Tensor:")[2])}
    strangers = sorted(called - OPERATORS)
    if strangers:
        raise Refused(f"it calls {strangers[0]}")
    if not _PROGRAM.fullmatch(text):
        raise Refused("its program is more than a list of operations")


class _Names(pickle.Unpickler):
    """Source lines for error messages: text, numbers and lists."""

    def __init__(self, content: bytes) -> None:
        strangers = sorted({opcode.name for opcode, _, _ in pickletools.genops(content)} - _OPCODES)
        if strangers:
            raise Refused(f"a pickle in it uses {strangers[0]}")
        super().__init__(io.BytesIO(content))

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch.jit._pickle", "build_intlist"):
            return list
        raise Refused(f"it wants to make {module}.{name}")


class _Storage(int):
    """A kind of storage: the bytes of each number. To torch's reader plain numbers are kinds too, but others."""


class _Constants(_Names):
    """The network's tensors. Torch's reader believes the sizes that it is told, so they are checked here."""

    def __init__(self, content: bytes, records: dict[str, bytes]) -> None:
        super().__init__(content)
        self.records = records

    def find_class(self, module: str, name: str) -> Any:
        known = {
            ("torch._utils", "_rebuild_tensor_v2"): self._check_tensor,
            ("torch", "FloatStorage"): _Storage(4),
            ("torch", "LongStorage"): _Storage(8),
            ("collections", "OrderedDict"): OrderedDict,
        }
        if (module, name) not in known:
            raise Refused(f"it wants to make {module}.{name}")
        return known[module, name]

    def persistent_load(self, pid: Any) -> int:
        """How many numbers a storage holds."""
        kind, itemsize, key, device, num_elements = pid
        if (kind, device) != ("storage", "cpu") or not isinstance(itemsize, _Storage):
            raise Refused("it wants constants of another kind")
        if not 0 <= num_elements * itemsize <= len(self.records[f"constants/{key}"]):
            raise Refused("it wants a constant that is larger than its storage")
        return num_elements

    @staticmethod
    def _check_tensor(num_elements: int, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> None:
        if min((offset, *size, *stride)) < 0 or len(size) != len(stride):
            raise Refused("it wants a constant of no possible shape")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if math.prod(size) and last >= num_elements:
            raise Refused("it wants a constant that is larger than its storage")
