"""Pickles from honest people load whatever protocol they chose; pickles from others run nothing."""

from __future__ import annotations

import builtins
import collections
import contextlib
import io
import operator
import os
import pickle
import random
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from skelact.errors import SkelactError
from skelact.unpickling import load_pickle, load_torch

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


class Calls:
    """Pickles as a call: what loading this with ``pickle.load`` would run."""

    def __init__(self, function: Callable[..., Any], *args: Any, state: Any = None, items: Any = None) -> None:
        self.function, self.args, self.state, self.items = function, args, state, items

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.args, self.state, None, self.items


def saved(folder: Path, value: Any, protocol: int = 4) -> Path:
    return written(folder, pickle.dumps(value, protocol))


def written(folder: Path, content: bytes) -> Path:
    path = folder / "file.pkl"
    path.write_bytes(content)
    return path


def call_by_name(name: str, argument: str = "") -> bytes:
    """A protocol 0 pickle that calls MODULE.NAME with a text; the name need not exist."""
    module, _, name = name.rpartition(".")
    return f"c{module}\n{name}\n(V{argument}\ntR.".encode()


def call_by_dotted_name(module: str, name: str, argument: str = "") -> bytes:
    """The same in protocol 4, where a name may have dots: STACK_GLOBAL walks from attribute to attribute."""
    texts = [b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name, argument)]
    return b"\x80\x04" + texts[0] + texts[1] + b"\x93" + texts[2] + b"\x85R."


@pytest.fixture
def sentinel(tmp_path: Path) -> Path:
    """A file that attacks try to create."""
    return tmp_path / "sentinel"


@pytest.fixture
def touch(sentinel: Path) -> str:
    """A shell command that creates it."""
    return f"{sys.executable} -c \"open(r'{sentinel}', 'w')\""


# --- honest pickles ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "array",
    [
        np.arange(24, dtype=np.float16).reshape(2, 3, 4),
        np.linspace(0, 1, 5, dtype=np.float32),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(10)[::3],
        np.arange(3, dtype=">i4"),
        np.zeros((0, 3)),
        np.array(5),
        np.array([True, False]),
        np.array(["walk", "wave"]),
        np.array([{"label": 3}, None, [1, 2]], dtype=object),
    ],
    ids=["float16", "float32", "fortran", "strided", "big-endian", "empty", "0d", "bool", "text", "object"],
)
def test_arrays_of_every_kind_and_protocol(tmp_path: Path, protocol: int, array: np.ndarray) -> None:
    loaded = load_pickle(saved(tmp_path, {"keypoint": array}, protocol))["keypoint"]
    assert type(loaded) is np.ndarray
    assert loaded.dtype.newbyteorder("=") == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(loaded, array)
    if array.size and array.dtype.kind == "f":
        loaded[...] = 0  # it is the caller's own
        assert not loaded.any()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_scalars_and_plain_containers(tmp_path: Path, protocol: int) -> None:
    value = {
        "label": np.int64(3),
        "score": np.float32(0.5),
        "known": np.bool_(True),
        "text": "Körper",
        "bytes": b"\x00\xff",
        "no bytes": b"",
        "bytearray": bytearray(b"ab\xff"),
        "numbers": [1, -(2**70), 2.5, 1 + 2j, None, True],
        "set": {1, 2},
        "frozen": frozenset("ab"),
        "nested": [[()], ({"a": [1]},)],
        "ordered": collections.OrderedDict(b=1, a=2),
        "default": collections.defaultdict(list, a=[1]),
        "counted": collections.Counter("aab"),
    }
    loaded = load_pickle(saved(tmp_path, value, protocol))
    assert loaded == value
    assert type(loaded["label"]) is np.int64
    assert type(loaded["score"]) is np.float32
    assert list(loaded["ordered"]) == ["b", "a"]
    assert loaded["default"]["new"] == []


def test_one_array_in_two_places_stays_one(tmp_path: Path) -> None:
    array = np.arange(3)
    first, second = load_pickle(saved(tmp_path, [array, array]))
    assert first is second


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(6).reshape(2, 3),
        torch.linspace(0, 1, 4, dtype=torch.float16),
        torch.arange(12.0).reshape(3, 4).T,
        torch.zeros(0),
    ],
    ids=["int64", "float16", "transposed", "empty"],
)
def test_torch_tensors_as_score_dumps_hold_them(tmp_path: Path, protocol: int, tensor: torch.Tensor) -> None:
    dump = [{"pred_score": tensor, "gt_label": torch.tensor([3])}]
    (loaded,) = load_pickle(saved(tmp_path, dump, protocol))
    torch.testing.assert_close(loaded["pred_score"], tensor, rtol=0, atol=0)
    assert loaded["gt_label"].item() == 3


def test_a_pickle_of_python_2(tmp_path: Path) -> None:
    """Byte strings for names and for arrays' data, modules by their old names."""
    data = np.arange(3, dtype="<f8").tobytes()
    content = (
        b"\x80\x02}(U\x05label]U\x04walkaU\x04pose]"
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x03\x85cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R"
        b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"U" + bytes([len(data)]) + data + b"tba"
        b"U\x03set" + b"c__builtin__\nset\n]K\x01a\x85R"
        b"U\x05index" + b"cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nU\x02i8K\x00K\x01\x87R"
        b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tbU\x08\x07\x00\x00\x00\x00\x00\x00\x00\x86R"
        b"u."
    )
    loaded = load_pickle(written(tmp_path, content))
    assert (loaded["label"], loaded["set"], loaded["index"]) == (["walk"], {1}, 7)
    np.testing.assert_array_equal(loaded["pose"], [np.arange(3.0)])


def test_loading_warns_of_nothing(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    load_pickle(saved(tmp_path, [np.zeros(2), torch.zeros(2)]))
    assert [str(warning.message) for warning in recwarn] == []


# --- no pickles --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [b"", b"hello, this is text\n", b"\x80\x04", b"PK\x03\x04" + bytes(40), bytes(100), b"\x80\x63N.", b"(.", b"0."],
    ids=["empty", "text", "start only", "zip", "zeros", "future protocol", "mark", "pop of nothing"],
)
def test_files_that_are_no_pickles(tmp_path: Path, content: bytes) -> None:
    path = written(tmp_path, content)
    found = "another or a damaged file" if content else "an empty file"
    with pytest.raises(SkelactError, match=rf"file\.pkl: expected a pickle, found {found}"):
        load_pickle(path)


def test_a_truncated_pickle_wherever_it_ends(tmp_path: Path) -> None:
    content = pickle.dumps([np.arange(4.0), {"a": [1, "b"]}, torch.zeros(2)], 2)
    for length in range(len(content)):
        with pytest.raises(SkelactError):
            load_pickle(written(tmp_path, content[:length]))


def test_a_file_that_is_not_there_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(SkelactError, match=r"nothing\.pkl: no such file"):
        load_pickle(tmp_path / "nothing.pkl")
    with pytest.raises(SkelactError, match="expected a pickle, found a folder"):
        load_pickle(tmp_path)


# --- hostile pickles ---------------------------------------------------------------------------------------------


def refused(path: Path) -> str:
    """The message with which a pickle is refused."""
    with pytest.raises(SkelactError) as error:
        load_pickle(path)
    message = str(error.value)
    assert str(path) in message
    assert "refused, nothing was run: expected arrays and plain containers, but it wants" in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_shell_command(tmp_path: Path, sentinel: Path, touch: str, protocol: int) -> None:
    message = refused(saved(tmp_path, [np.zeros(3), Calls(os.system, touch)], protocol))
    assert f"to call {os.system.__module__}.system" in message
    assert not sentinel.exists()


def test_the_same_file_would_hurt_elsewhere(tmp_path: Path, sentinel: Path, touch: str) -> None:
    """The attacks here are real: ``pickle.load`` falls for them."""
    pickle.loads(saved(tmp_path, Calls(os.system, touch)).read_bytes())
    assert sentinel.exists()


@pytest.mark.parametrize(
    "function",
    [builtins.exec, builtins.eval, builtins.__import__, builtins.getattr, builtins.open, builtins.type],
    ids=lambda function: function.__name__,
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_builtins(tmp_path: Path, sentinel: Path, function: Callable[..., Any], protocol: int) -> None:
    code = f"open({str(sentinel)!r}, 'w')"
    message = refused(saved(tmp_path, {"a": Calls(function, code)}, protocol))
    assert function.__name__ in message
    assert not sentinel.exists()


@pytest.mark.parametrize(
    "value",
    [
        Calls(subprocess.Popen, "touch sentinel", -1, None, None, None, None, None, True, True),
        Calls(operator.attrgetter("system"), os),
        Calls(operator.methodcaller("system", "true"), os),
        Calls(np.load, "sentinel", None, True),
        Calls(np.fromfile, "sentinel"),
        Calls(np.memmap, "sentinel", "f4", "w+", 0, 4),
        Calls(torch.load, "sentinel"),
        Calls(torch.hub.load, "owner/repo", "model"),
        Calls(torch.from_file, "sentinel", True, 4),
        torch.nn.Linear(2, 2),
        Path("x"),
        os.system,
    ],
    ids=lambda value: getattr(getattr(value, "function", value), "__name__", type(value).__name__),
)
def test_other_callables(tmp_path: Path, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for protocol in (2, 4):
        try:
            content = pickle.dumps(value, protocol)
        except (TypeError, pickle.PicklingError, AttributeError):
            content = call_by_name("operator.attrgetter", "system")  # pickling a module fails at the writer
        refused(written(tmp_path, content))
    assert [path.name for path in tmp_path.iterdir()] == ["file.pkl"]


@pytest.mark.parametrize(
    "name",
    [
        "numpy.load",
        "numpy.fromfile",
        "numpy.memmap",
        "numpy.core.multiarray.fromfile",
        "numpy._core.multiarray.fromfile",
        "numpy.core.multiarray.array",
        "numpy.core.numeric.fromfile",
        "numpy.testing._private.utils.runstring",
        "numpy.f2py.capi_maps.load_f2cmap_file",
        "torch.storage.UntypedStorage.from_file",
        "torch._utils._import_dotted_name",
        "torch._utils._rebuild_device_tensor_from_numpy",
        "torch.serialization.load",
        "torch._C._jit_pass_inline",
        "torch.jit.load",
        "collections.namedtuple",
        "collections.UserDict",
        "_codecs.lookup",
        "_codecs.register",
        "codecs.open",
        "copyreg._reconstructor",
        "copy_reg._reconstructor",
        "functools.partial",
        "types.CodeType",
        "posix.system",
        "nt.system",
        "builtins.map",
        "__builtin__.apply",
        "__builtin__.file",
        "skelact.unpickling.load_pickle",
        "not_installed.anywhere",
    ],
)
def test_other_names(tmp_path: Path, name: str) -> None:
    assert f"to call {name}" in refused(written(tmp_path, call_by_name(name)))


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "list.__class__"),
        ("builtins", "dict.__subclasses__"),
        ("builtins", "object.__subclasses__"),
        ("collections", "OrderedDict.__init__.__globals__"),
        ("collections", "defaultdict.fromkeys"),
        ("numpy", "ndarray.tofile"),
        ("numpy", "dtype.__class__"),
        ("numpy", "os.system"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("torch._utils", "torch.load"),
        ("torch.storage", "_load_from_bytes.__globals__"),
        ("torch.storage", "io.open"),
        ("_codecs", "encode.__self__"),
        ("", "os.system"),
        ("builtins.list", "__class__"),
        ("os", "sys.modules"),
    ],
)
def test_dotted_names_do_not_walk_to_attributes(tmp_path: Path, module: str, name: str) -> None:
    assert "to call" in refused(written(tmp_path, call_by_dotted_name(module, name)))


def test_old_opcodes_are_no_way_round(tmp_path: Path, sentinel: Path, touch: str) -> None:
    """INST and OBJ name classes without GLOBAL; extension codes look them up in a registry."""
    refused(written(tmp_path, f"(V{touch}\nios\nsystem\n.".encode()))
    refused(written(tmp_path, f"(cos\nsystem\nV{touch}\no.".encode()))
    with pytest.raises(SkelactError):
        load_pickle(written(tmp_path, b"\x80\x02\x82\x01."))
    with pytest.raises(SkelactError):
        load_pickle(written(tmp_path, b"Pstorage\n."))
    assert not sentinel.exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("wrap", ["pickle", "zip", "old format"])
def test_a_payload_inside_a_tensor(tmp_path: Path, sentinel: Path, touch: str, wrap: str) -> None:
    """``torch.storage._load_from_bytes`` would unpickle what it is given."""
    payload = Calls(os.system, touch)
    inner = io.BytesIO()
    if wrap == "pickle":
        inner.write(pickle.dumps(payload))
    else:
        torch.save({"weights": payload}, inner, _use_new_zipfile_serialization=wrap == "zip")
    outer = Calls(torch.storage._load_from_bytes, inner.getvalue())
    with pytest.raises(SkelactError, match=r"refused, nothing was run.*a tensor that is none"):
        load_pickle(saved(tmp_path, [outer]))
    assert not sentinel.exists()


def test_a_factory_that_is_worth_calling_is_refused(tmp_path: Path) -> None:
    assert "os.system" in refused(written(tmp_path, b"ccollections\ndefaultdict\n(cos\nsystem\ntR."))


SET_ATTRIBUTE = b"(N}(V%s\nV%s\nutb."  # the state (None, {name: value}): setattr on what came before


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("collections", "Counter"),
        ("collections", "OrderedDict"),
        ("collections", "defaultdict"),
        ("_codecs", "encode"),
        ("torch._utils", "_rebuild_tensor_v2"),
        ("torch._utils", "_rebuild_parameter"),
        ("torch.storage", "_load_from_bytes"),
        ("numpy.core.numeric", "_frombuffer"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("builtins", "list"),
        ("builtins", "bytearray"),
    ],
)
@pytest.mark.parametrize("attribute", ["__name__", "skelact_was_here"])
def test_nothing_that_is_named_can_be_changed(tmp_path: Path, module: str, name: str, attribute: str) -> None:
    """BUILD sets attributes of any object: of a class or a function it would change the whole program."""
    content = f"c{module}\n{name}\n".encode() + SET_ATTRIBUTE % (attribute.encode(), b"evil")
    with pytest.raises(SkelactError):
        load_pickle(written(tmp_path, content))
    for thing in (collections.Counter, torch._utils._rebuild_tensor_v2, torch._utils._rebuild_parameter):
        assert thing.__name__ != "evil"
        assert not hasattr(thing, "skelact_was_here")


@pytest.mark.parametrize("function", [bytes, bytearray], ids=lambda function: function.__name__)
def test_a_few_bytes_do_not_fill_the_memory(tmp_path: Path, function: Callable[..., Any]) -> None:
    for size in (1 << 50, 1 << 20):  # the first would fail by itself
        with pytest.raises(SkelactError):
            load_pickle(saved(tmp_path, Calls(function, size)))


# --- numpy believes what it is told ------------------------------------------------------------------------------

RECONSTRUCT = np.zeros(1).__reduce__()[0]
FROM_BUFFER = np.zeros(1).__reduce_ex__(5)[0]  # type: ignore[arg-type]


def bytes_as_pointers() -> Calls:
    """The type of objects, with flags that deny it."""
    return Calls(np.dtype, "O", False, True, state=(3, "|", None, None, None, -1, -1, 0))


def field_outside() -> Calls:
    """Records of 8 bytes with a field that starts a terabyte farther."""
    fields = {"a": (np.dtype("f8"), 1 << 40)}
    return Calls(np.dtype, "V8", False, True, state=(3, "|", None, ("a",), fields, 8, 1, 0))


def array_of(dtype: Calls) -> Calls:
    return Calls(RECONSTRUCT, np.ndarray, (0,), b"b", state=(1, (1,), dtype, False, b"AAAAAAAA"))


def overwritten_pointers() -> list[Any]:
    """Objects, and integers over the same memory, one of which is set."""
    objects = np.array([None], dtype=object)
    return [Calls(np.ndarray, (1,), "i8", objects, items=iter([(0, 0x4141414141)])), objects]


def buffer_of_pointers() -> list[Any]:
    objects = np.array([None], dtype=object)
    return [Calls(FROM_BUFFER, objects, np.dtype("i8"), (1,), "C", items=iter([(0, 0x4141414141)])), objects]


LOAD_AND_LOOK = """
import sys
from skelact.errors import SkelactError
from skelact.unpickling import load_pickle

try:
    repr(load_pickle(sys.argv[1]))
except SkelactError as error:
    print(error)
"""


@pytest.mark.parametrize(
    "attack",
    [
        lambda: array_of(bytes_as_pointers()),
        lambda: Calls(FROM_BUFFER, b"AAAAAAAA", bytes_as_pointers(), (1,), "C"),
        lambda: array_of(field_outside()),
        overwritten_pointers,
        buffer_of_pointers,
    ],
    ids=["false flags", "false flags from a buffer", "field outside", "overwritten pointers", "buffer of pointers"],
)
def test_arrays_that_reach_into_memory(tmp_path: Path, attack: Callable[[], Any]) -> None:
    """In a process of its own, which dies where this succeeds; more patient attackers would take it over."""
    path = saved(tmp_path, attack(), 2)
    done = subprocess.run([sys.executable, "-c", LOAD_AND_LOOK, path], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"the process died: {done.returncode} {done.stderr[-300:]}"
    assert "refused, nothing was run" in done.stdout or "expected a pickle" in done.stdout


def test_an_array_is_of_numpys_own_class(tmp_path: Path) -> None:
    with pytest.raises(SkelactError, match="it wants an array of another class"):
        load_pickle(saved(tmp_path, Calls(RECONSTRUCT, dict, (0,), b"b")))


def test_an_array_that_is_made_cannot_be_made_anew(tmp_path: Path) -> None:
    """Numpy would let its memory go, whoever looks at it."""
    state = (1, (1,), np.dtype("i8"), False, b"BBBBBBBB")
    made_twice = Calls(FROM_BUFFER, b"AAAAAAAA", np.dtype("i8"), (1,), "C", state=state)
    with pytest.raises(SkelactError, match=r"refused, nothing was run: .* it wants to change an array"):
        load_pickle(saved(tmp_path, made_twice))


# --- checkpoints as torch writes them ----------------------------------------------------------------------------


def refused_by_torch_loader(path: Path) -> str:
    with pytest.raises(SkelactError) as error:
        load_torch(path)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("junk", [0, 100, 65_000, 66_000, 68_000, 69_000, 70_000])
def test_a_torchscript_program_is_not_started(tmp_path: Path, junk: int) -> None:
    """Not even with so much behind it that Python's zipfile sees no archive any more, but torch's reader does."""
    path = tmp_path / "program.pt"
    torch.jit.save(torch.jit.script(Doubled()), path)
    path.write_bytes(path.read_bytes() + bytes(junk))
    message = refused_by_torch_loader(path)
    assert "found a TorchScript program" in message or "found another or a damaged file" in message


class Doubled(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


def test_the_oldest_format_is_not_unpacked(tmp_path: Path) -> None:
    """Torch would extract a tar, hard links and permissions included: the user's own file would be opened to all."""
    victim = tmp_path / "private"
    victim.write_text("secret")
    victim.chmod(0o600)
    path = tmp_path / "checkpoint.pth"
    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo("storages")
        member.type, member.linkname, member.mode = tarfile.LNKTYPE, str(victim), 0o777
        tar.addfile(member)
    refused_by_torch_loader(path)
    assert victim.stat().st_mode & 0o777 == 0o600


def old_format(content: bytes) -> bytes:
    """A checkpoint of before torch 1.6 around a pickle."""
    head = [torch.serialization.MAGIC_NUMBER, torch.serialization.PROTOCOL_VERSION]
    head.append({"protocol_version": 1001, "little_endian": True, "type_sizes": {}})
    return b"".join(pickle.dumps(value, 2) for value in head) + content + pickle.dumps([], 2)


def test_source_code_in_the_old_format_writes_no_patch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch compares a module's source with the installed one and, if the module says so, saves the difference."""
    inside = tmp_path / "inside"
    inside.mkdir()
    monkeypatch.chdir(inside)
    function = b"ctorch._utils\n_rebuild_parameter\n"
    poison = function + b"(N}(Vdump_patches\n\x88V__name__\nV../evil\nutb0"
    path = tmp_path / "checkpoint.pth"
    path.write_bytes(old_format(b"\x80\x02" + poison + b"(Vmodule\n" + function + b"Vfile\nVsource\ntQ."))
    assert "it wants to change _rebuild_parameter" in refused_by_torch_loader(path)
    assert not (tmp_path / "evil.patch").exists()


@pytest.mark.parametrize(
    "content", [b"\x80\x02(Vfoo\nV1\ntQ.", b"\x80\x02VnoTuple\nQ.", b"\x80\x02(Vstorage\nV1\ntQ.", b"\x80\x02(tQ."]
)
def test_persistent_ids_that_torch_does_not_know(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "checkpoint.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    refused_by_torch_loader(path)
    path.write_bytes(old_format(content))
    refused_by_torch_loader(path)


def test_damage_anywhere_is_an_error_or_harmless(tmp_path: Path) -> None:
    """A few hundred files with flipped bytes: loaded, or refused in one line."""
    rng = random.Random(0)
    value = {"meta": {"a": [1, "b"]}, "state_dict": {"w": torch.arange(4.0)}}
    for zipped in (True, False):
        path = tmp_path / "whole.pth"
        torch.save(value, path, _use_new_zipfile_serialization=zipped)
        whole = path.read_bytes()
        for _ in range(150):
            damaged = bytearray(whole)
            for _ in range(rng.choice([1, 1, 3])):
                damaged[rng.randrange(len(damaged))] = rng.randrange(256)
            path.write_bytes(damaged[: rng.choice([len(damaged), len(damaged), rng.randrange(len(damaged))])])
            with contextlib.suppress(SkelactError):
                load_torch(path)
