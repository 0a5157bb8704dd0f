"""A classifier goes to another runtime and comes back: the same scores, the same settings, and nothing hostile."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from stand_ins import CLASSES, classifier_file, published_file, random_network

import skelact
import skelact.exported
from skelact import exporting
from skelact.calibration import Calibration
from skelact.checkpoint import load_checkpoint, metadata_of
from skelact.classifier import Classifier
from skelact.cli import main
from skelact.errors import SkelactError
from skelact.exported import is_exported, load_exported
from skelact.exporting import SUFFIXES, compare, export
from skelact.model import ModelSettings
from skelact.skeleton import COCO, NTU, Layout

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's, of TorchScript

PACKAGES = {"onnx": ("onnx", "onnxruntime"), "openvino": ("openvino",), "torchscript": ()}
ARM = Layout("arm", ("shoulder", "elbow", "hand"), ((1, 0), (2, 1)), 0, flip_pairs=((1, 2),))


def need(format: str) -> None:
    for package in PACKAGES[format]:
        if not find_spec(package):
            pytest.skip(f"needs {package}")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="skelact")


def told(*arguments: object) -> Any:
    """The JSON that a command prints."""
    result = run(*arguments, "--json", "-")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def error_of(path: Path, **options: Any) -> str:
    with pytest.raises(SkelactError) as caught:
        load_exported(path, **options)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


@pytest.fixture(scope="module")
def poses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Walks of random joints, with labels."""
    rng = np.random.default_rng(0)
    samples = [
        {
            "frame_dir": f"s{k}",
            "keypoint": rng.normal(0, 20, (1 + k % 2, 20 + 9 * k, 17, 2)).cumsum(axis=1) + 500,
            "img_shape": (1080, 1920),
            "label": k % len(CLASSES),
        }
        for k in range(4)
    ]
    path = tmp_path_factory.mktemp("poses") / "poses.pkl"
    path.write_bytes(pickle.dumps({"split": {}, "annotations": samples, "class_names": list(CLASSES)}))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classifier_file(
        tmp_path_factory.mktemp("model") / "small.safetensors", stream="bone", provenance={"pose_model": "drawn"}
    )


@pytest.fixture(scope="module")
def exports(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Exports of the model, each made once, by its command."""
    folder = tmp_path_factory.mktemp("exports")

    def made(format: str) -> Path:
        need(format)
        path = folder / f"small{SUFFIXES[format]}"
        if not path.exists():
            result = run("export", model, "--format", format, "--out", path)
            assert result.exit_code == 0, result.output
        return path

    return made


@pytest.fixture(params=SUFFIXES)
def exported(request: pytest.FixtureRequest, exports: Callable[[str], Path]) -> Path:
    return exports(request.param)


# --- there and back ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", SUFFIXES)
def test_an_export_is_checked_with_random_inputs(model: Path, tmp_path: Path, format: str) -> None:
    need(format)
    shutil.copy(model, tmp_path / "small.safetensors")
    result = run("export", tmp_path / "small.safetensors", "--format", format, "--json", tmp_path / "check.json")
    assert result.exit_code == 0, result.output
    assert "20 random inputs in batches of 1, 2, 3, 4, 10: logits up to" in result.stdout
    assert result.stderr == ""
    written = json.loads((tmp_path / "check.json").read_text())
    assert (written["schema_version"], written["command"][0]) == (1, "skelact")
    check = written["export"]
    assert check["path"] == str(tmp_path / f"small{SUFFIXES[format]}"), "beside the checkpoint"
    assert check["max_difference"] < 1e-4 < 0.1 < check["max_logit"]
    assert set(check["versions"]) == {"skelact", "python", "torch", "numpy", *PACKAGES[format]}


def test_batches_that_come_again_get_the_same_answer(model: Path, exported: Path) -> None:
    network, plain = load_exported(exported).build(), load_checkpoint(model).build()
    clips = load_checkpoint(model).clips
    inputs = torch.randn(3, clips.num_person, clips.clip_len, clips.layout.num_joints, clips.in_channels)
    with torch.inference_mode():
        expected = plain(inputs)
        for size in (1, 3, 1, 3, 2, 1, 3):  # OpenVINO's program for a shape is made when it comes for a second time
            assert torch.allclose(network(inputs[:size]), expected[:size], atol=1e-4)


def test_openvino_keeps_few_programs_however_many_clips_come(
    model: Path, exports: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Videos have any number of windows, and a program of its own for each would fill the memory."""
    path = exports("openvino")
    core, compiled = skelact.exported.openvino_core(), []

    class Counting:
        read_model = staticmethod(core.read_model)

        def compile_model(self, *what: Any) -> Any:
            compiled.append(what)
            return core.compile_model(*what)

    monkeypatch.setattr(skelact.exported, "openvino_core", Counting)
    network, expected = load_exported(path).build(), load_checkpoint(model).build()
    clips = torch.randn(40, 2, 16, 17, 3)
    with torch.inference_mode():
        logits = expected(clips)
        for _ in range(2):
            for N in range(1, 41):
                torch.testing.assert_close(network(clips[:N]), logits[:N], rtol=0, atol=1e-3)
    assert len(compiled) <= 11


def test_predict_gives_the_same_scores(model: Path, exported: Path, poses: Path) -> None:
    expected, found = (told("predict", poses, "--model", each) for each in (model, exported))
    assert found["class_names"] == expected["class_names"] == list(CLASSES)
    for one, other in zip(expected["results"], found["results"], strict=True):
        assert other["source"] == one["source"]
        assert other["predictions"][0]["scores"] == pytest.approx(one["predictions"][0]["scores"], abs=1e-4)
    assert expected["models"][0]["stream"] == found["models"][0]["stream"] == "bone"


def test_exports_are_tested_and_fused(model: Path, exported: Path, poses: Path) -> None:
    alone = skelact.test(poses, model, progress=False)
    fused = skelact.test(poses, [model, exported], progress=False)
    np.testing.assert_allclose(fused.scores, alone.scores, atol=1e-4)
    assert fused.sources[1]["file"] == exported.name


def test_info_tells_the_same_of_both(model: Path, exported: Path) -> None:
    (expected,), (found,) = (told("info", each)["checkpoints"] for each in (model, exported))
    made_by = found["provenance"].pop("export")
    assert {**found, "file": ""} == {**expected, "file": ""}
    assert made_by["checkpoint"] == "small.safetensors"
    assert len(made_by["checkpoint_sha256"]) == 64
    assert made_by["versions"]["skelact"] == skelact.__version__


@pytest.mark.parametrize(
    ("outputs", "json_path"),
    [(("--out", "a.onnx"), "./a.onnx"), (("--out", "a.xml"), "a.bin"), (("--format", "onnx"), "small.onnx")],
)
def test_the_check_does_not_replace_the_export(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outputs: tuple[str, ...], json_path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(model, "small.safetensors")
    result = run("export", "small.safetensors", *outputs, "--json", json_path)
    assert result.exit_code == 2
    assert "--json and --out: expected a path of its own for each" in result.stderr
    assert os.listdir() == ["small.safetensors"]


def test_an_export_has_the_class_names_that_it_is_given(tmp_path: Path) -> None:
    nameless = published_file(tmp_path / "small_j.pth", class_names=["class_0", "class_1"])
    (tmp_path / "names.txt").write_text("fall\nwave\n")
    path = tmp_path / "small.torchscript"
    result = run("export", nameless, "--class-names", tmp_path / "names.txt", "--out", path)
    assert result.exit_code == 0, result.output
    assert load_exported(path).class_names == ("fall", "wave")


def test_the_command_is_in_its_record(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["export", str(model), "--out", str(tmp_path / "small.torchscript")]
    monkeypatch.setattr(sys, "argv", ["/usr/bin/skelact", *arguments])
    assert run(*arguments).exit_code == 0
    found = load_exported(tmp_path / "small.torchscript")
    assert found.provenance["export"]["command"] == ["skelact", *arguments]


@pytest.mark.parametrize("format", SUFFIXES)
@pytest.mark.parametrize(("layout", "dims"), [(NTU, 3), (ARM, 2)], ids=["3D", "a layout of one's own"])
def test_every_setting_survives(tmp_path: Path, format: str, layout: Layout, dims: int) -> None:
    need(format)
    calibration = vars(Calibration(1.7, 0.4, 0.9, 0.1, "val", 12))
    checkpoint = load_checkpoint(
        classifier_file(tmp_path / "a.safetensors", ("é", 'say "<no>"', "c, d"), layout=layout, dims=dims)
    )
    checkpoint.metrics.update(calibration=calibration)
    skelact.save_checkpoint(checkpoint, tmp_path / "a.safetensors")
    path = tmp_path / f"b{SUFFIXES[format]}"
    assert export(tmp_path / "a.safetensors", path).format == format
    found = load_exported(path)
    assert (found.clips, found.model, found.class_names, found.metrics) == (
        checkpoint.clips,
        checkpoint.model,
        checkpoint.class_names,
        checkpoint.metrics,
    )
    assert Classifier([path]).members[0].temperature == 1.7


def test_overrides_are_those_of_a_checkpoint(exports: Callable[[str], Path]) -> None:
    path = exports("torchscript")
    assert load_exported(path, class_names=("a", "b", "c", "d")).class_names == ("a", "b", "c", "d")
    assert load_exported(path, stream="bone", layout=COCO).clips.layout == COCO
    assert "expected 4 class names, one an output, found 1" in error_of(path, class_names=("a",))
    assert "was trained on stream 'bone', cannot be used on 'joint'" in error_of(path, stream="joint")


def test_a_folder_is_an_openvino_model(exports: Callable[[str], Path], tmp_path: Path, poses: Path) -> None:
    path = exports("openvino")
    folder = tmp_path / "small_openvino_model"
    shutil.copytree(path.parent, folder)
    expected = load_exported(path)
    assert load_exported(folder).class_names == expected.class_names
    assert told("predict", poses, "--model", folder)["class_names"] == list(CLASSES)
    shutil.copy(path, folder / "other.xml")
    with pytest.raises(SkelactError, match=r"expected a folder with one OpenVINO network \(.xml\), found 2"):
        load_exported(folder)


# --- what export refuses -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ntu60-2d-two-stream", "--format", "onnx"], "export each stream (ntu60-2d-joint, ntu60-2d-bone) and fuse"),
        (["MODEL", "--out", "a.pt"], "expected a format (onnx, openvino, torchscript) or a file name with its suffix"),
        (["MODEL", "--out", "a.bin", "--format", "openvino"], "a.bin: expected a name that ends with .xml"),
        (["missing.pth", "--format", "onnx"], "neither a file nor a zoo name"),
        (["MODEL", "--format", "torchscript", "--stream", "joint"], "was trained on stream 'bone'"),
        (["MODEL", "--out", "/proc/nowhere/a.torchscript"], "cannot write"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_one_line_tells_what_is_wrong(arguments: list[str], message: str, model: Path) -> None:
    result = run("export", *(str(model) if argument == "MODEL" else argument for argument in arguments))
    assert result.exit_code == 1
    assert result.stdout == ""
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_without_format_and_name(model: Path) -> None:
    result = run("export", model)
    assert result.exit_code == 2
    assert "expected --format or --out" in result.stderr


def test_an_export_is_not_exported_again(exports: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(SkelactError, match="is an export already; export the checkpoint"):
        export(exports("torchscript"), tmp_path / "a.torchscript")


def test_a_checkpoint_is_not_overwritten(model: Path, tmp_path: Path) -> None:
    odd = tmp_path / "odd.xml.torchscript"
    shutil.copy(model, tmp_path / "odd.safetensors")
    odd.hardlink_to(tmp_path / "odd.safetensors")
    with pytest.raises(SkelactError, match="the output would replace its source"):
        export(tmp_path / "odd.safetensors", odd)
    pytest.importorskip("openvino", reason="needs the extra openvino")
    shutil.copy(model, tmp_path / "odd.bin")  # where the weights of odd.xml would go
    with pytest.raises(SkelactError, match="the output would replace its source"):
        export(tmp_path / "odd.bin", format="openvino")


@pytest.mark.parametrize(("format", "package"), [("onnx", "onnx"), ("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_a_missing_package_is_named(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str, package: str
) -> None:
    need("onnx" if package == "onnxruntime" else "torchscript")  # else onnx is missed first
    monkeypatch.setitem(sys.modules, package, None)
    path = tmp_path / f"a{SUFFIXES[format]}"
    result = run("export", model, "--out", path)
    assert result.exit_code == 1
    assert f"need the package {package}" in result.stderr
    assert f'install it with: pip install "skelact[{format}]"' in result.stderr
    path.write_bytes(b"<")
    path.with_suffix(".bin").write_bytes(b"")
    assert f'pip install "skelact[{format}]"' in run("info", path).stderr


@pytest.mark.parametrize("difference", [0.5, float("nan")])
def test_another_answer_is_not_written(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, difference: float
) -> None:
    path = tmp_path / "a.torchscript"
    path.write_text("as it was")
    monkeypatch.setattr(exporting, "compare", lambda *_: (difference, 1.0))
    with pytest.raises(SkelactError, match=f"not written: its logits differ by {difference:.2g}"):
        export(model, path)
    assert [path] == list(tmp_path.iterdir())
    assert path.read_text() == "as it was"


def test_a_graph_is_never_there_without_its_weights(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("openvino")
    copy = shutil.copyfile

    def full(source: Path, target: Path) -> None:
        copy(source, target)
        if source.suffix == ".xml":
            raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(exporting.shutil, "copyfile", full)
    with pytest.raises(SkelactError, match="the disk is full"):
        export(model, tmp_path / "a.xml")
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_differences_are_seen() -> None:
    settings = ModelSettings(3, 17, 4, (12,), (1,))
    one, other = (random_network(settings, COCO, seed) for seed in (0, 1))
    difference, largest = compare(one, other, (2, 8, 17, 3))
    assert min(difference, largest) > 0.1
    assert compare(one, one, (2, 8, 17, 3)) == (0, largest)


# --- files from strangers ----------------------------------------------------------------------------------------


def test_other_files_are_refused(tmp_path: Path, exported: Path) -> None:
    content = exported.read_bytes()
    path = tmp_path / exported.name
    if exported.suffix == ".xml":
        shutil.copy(exported.with_suffix(".bin"), tmp_path)
    for damaged in (b"", b"hello", b"<hello>", content[: len(content) // 2], content[:-100]):
        path.write_bytes(damaged)
        assert "expected a network that skelact exported" in error_of(path)
    path.write_bytes(content)
    assert load_exported(path).class_names == CLASSES


def test_settings_that_fit_no_network_are_refused(model: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(model)
    metadata = metadata_of(checkpoint)
    example = torch.zeros(2, 2, 16, 17, 3)
    for old, new in (
        ('"num_classes": 4', '"num_classes": 5'),
        ('"clip_len": 16', '"clip_len": 0'),
        ('"channels": [12, 24]', '"channels": "many"'),
        ('"model"', '"modle"'),
    ):
        changed = metadata["settings"].replace(old, new)
        assert changed != metadata["settings"]
        path = tmp_path / "a.torchscript"
        exporting._write_torchscript(checkpoint.build(), example, {**metadata, "settings": changed}, path)
        error_of(path)
    exporting._write_torchscript(checkpoint.build(), example, {}, path)
    assert "found one without its metadata (format, format_version, settings)" in error_of(path)


class Writes(torch.nn.Module):
    """Makes a file when it is run."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.from_file(self.path, True, len(x)) + x


class WritesOnLoading(torch.nn.Module):
    """Makes a file when it is loaded."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.made = torch.zeros(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.made

    @torch.jit.export
    def __getstate__(self) -> tuple[str, torch.Tensor, bool]:
        return self.path, self.made, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, torch.Tensor, bool]) -> None:
        self.path, self.training = state[0], state[2]
        self.made = torch.from_file(self.path, True, 4)


ATTACKS: dict[str, Callable[[str], Any]] = {
    "when run": lambda path: torch.jit.script(Writes(path)),
    "frozen": lambda path: torch.jit.freeze(torch.jit.script(Writes(path)).eval()),
    "when loaded": lambda path: torch.jit.script(WritesOnLoading(path)),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_hostile_programs_are_not_run(tmp_path: Path, attack: Callable[[str], Any]) -> None:
    sentinel, path = tmp_path / "sentinel", tmp_path / "a.torchscript"
    torch.jit.save(attack(str(sentinel)), path, _extra_files={"format": "skelact-checkpoint"})
    assert "refused, nothing was run: expected a network that skelact exported, but it" in error_of(path)
    assert run("predict", "poses.pkl", "--model", path).exit_code == 1
    assert not sentinel.exists()
    torch.jit.load(path)(torch.zeros(4))
    assert sentinel.exists(), "the attack is real"


Change = Callable[[str, bytes], bytes]


def rewritten(source: Path, path: Path, change: Change, added: dict[str, bytes] | None = None) -> Path:
    """A copy of a zip archive with changed members."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name.partition("/")[2], old.read(name)))
        for name, content in (added or {}).items():
            new.writestr(f"{old.namelist()[0].partition('/')[0]}/{name}", content)
    return path


def in_code(old: str, new: str) -> Change:
    """Replace text in the program."""

    def change(name: str, content: bytes) -> bytes:
        if not name.endswith(".py"):
            return content
        assert old.encode() in content
        return content.replace(old.encode(), new.encode(), 1)

    return change


def in_pickle(member: str, old: bytes, new: bytes) -> Change:
    """Replace bytes in a pickle."""

    def change(name: str, content: bytes) -> bytes:
        if name != member:
            return content
        assert old in content
        return content.replace(old, new, 1)

    return change


# The first tensor is a matrix (17, 3), V x C.
MATRIX = b"K3tQq\x05K\x00(K\x11K\x03t(K\x03K\x01t"
TAMPERED: dict[str, tuple[Change, str]] = {
    "another operator": (in_code("torch.relu(", "torch.from_file("), "it calls torch.from_file"),
    "of another namespace": (in_code("torch.relu(", "ops.evil.relu("), "it calls ops.evil.relu"),
    "behind a space": (in_code("torch.relu(", "torch.from_file ("), "more than a list"),
    "behind a dot and a space": (in_code("torch.relu(", "torch. from_file("), "it calls from_file"),
    "by another name": (in_code("    return ", "    f = torch.from_file\n    return f("), "it calls f"),
    "in parentheses": (in_code("torch.relu(", "(torch.from_file)("), "it calls )"),
    "a loop": (in_code("    return ", "    while True:\n      x = x\n    return "), "more than a list"),
    "a comment": (in_code("    return ", "    # type: ignore\n    return "), "more than a list"),
    "an odd string": (in_code("    return ", "    s = 'torch'\n    return "), "more than a list"),
    "a method": (
        in_code("class ", "class A(Module):\n  def __setstate__(self) -> None:\n    pass\nclass "),
        "more than",
    ),
    "no text": (in_code("    return ", "\xff"), "it is damaged"),
    "a state": (in_pickle("data.pkl", b"}(ub", b"}(X\x01\x00\x00\x00aNub"), "more than a program"),
    "an operator that makes": (
        in_pickle("constants.pkl", b"ccollections\nOrderedDict", b"ctorch\nfrom_file"),
        "it wants to make torch.from_file",
    ),
    "an odd pickle": (in_pickle("constants.pkl", b"\x80\x02(", b"\x80\x02]0("), "a pickle in it uses POP"),
    "a tensor beyond its storage": (
        in_pickle("constants.pkl", MATRIX, MATRIX.replace(b"(K\x11K", b"(K\x12K")),
        "larger than its storage",
    ),
    "a tensor of large steps": (
        in_pickle("constants.pkl", MATRIX, MATRIX.replace(b"(K\x03K\x01t", b"(K\x04K\x01t")),
        "larger than its storage",
    ),
    "a tensor that starts late": (
        in_pickle("constants.pkl", MATRIX, MATRIX.replace(b"K\x00(", b"K\x01(")),
        "larger than its storage",
    ),
    "a storage beyond its record": (
        in_pickle("constants.pkl", MATRIX, MATRIX.replace(b"K3tQ", b"K\xfftQ")),
        "larger than its storage",
    ),
    "negative steps": (
        in_pickle("constants.pkl", MATRIX, MATRIX.replace(b"(K\x03K\x01t", b"(J\xff\xff\xff\xffK\x01t")),
        "no possible shape",
    ),
    "doubles": (in_pickle("constants.pkl", b"ctorch\nFloatStorage", b"ctorch\nDoubleStorage"), "wants to make"),
    "a kind by its number": (in_pickle("constants.pkl", b"ctorch\nFloatStorage\n", b"K\x00"), "of another kind"),
    "a class of torch's own": (
        in_pickle("data.pkl", b"c__torch__.skelact.folded", b"c__torch__.torch.classes"),
        "more than a program",
    ),
}


@pytest.mark.parametrize(("change", "message"), TAMPERED.values(), ids=TAMPERED)
def test_tampered_programs_are_refused(
    exports: Callable[[str], Path], tmp_path: Path, change: Change, message: str
) -> None:
    path = rewritten(exports("torchscript"), tmp_path / "a.torchscript", change)
    assert message in error_of(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("added", "message"),
    [
        ({"model.json": b"{}"}, "it holds 'model.json'"),
        ({"code/__torch__/skelact/other.py": b""}, "more than one program"),
        ({"code/__torch__/../other.py": b""}, "it holds 'code/__torch__/../other.py'"),
        ({"DATA.PKL": b""}, "it holds 'DATA.PKL'"),
        ({"constants/0": b""}, "two members of one name"),
    ],
)
def test_archives_with_more_in_them_are_refused(
    exports: Callable[[str], Path], tmp_path: Path, added: dict[str, bytes], message: str
) -> None:
    path = rewritten(exports("torchscript"), tmp_path / "a.torchscript", lambda name, content: content, added)
    assert message in error_of(path)


def test_an_archive_that_is_rewritten_unchanged_is_fine(exports: Callable[[str], Path], tmp_path: Path) -> None:
    path = rewritten(exports("torchscript"), tmp_path / "a.torchscript", lambda name, content: content)
    assert load_exported(path).class_names == CLASSES
    content = path.read_bytes()
    path.write_bytes(content[:4] + b"PTMF" + content[8:])
    assert "it is no zip archive" in error_of(path), "torch would read it as a FlatBuffer"


def onnx_of(exports: Callable[[str], Path]) -> tuple[Any, Any]:
    path = exports("onnx")
    import onnx

    return onnx, onnx.load(path)


@pytest.mark.parametrize("nested", [False, True], ids=["a weight", "in a branch"])
def test_onnx_that_reads_other_files_is_refused(exports: Callable[[str], Path], tmp_path: Path, nested: bool) -> None:
    onnx, model = onnx_of(exports)
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(10**5))
    tensor = next(each for each in model.graph.initializer if len(each.dims) > 2)
    if nested:
        branch = onnx.helper.make_graph([], "branch", [], [], [tensor])
        model.graph.node.append(onnx.helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch))
        tensor = model.graph.node[-1].attribute[0].g.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, "../" * 20 + str(secret)[1:])
    tensor.ClearField("raw_data")
    path = tmp_path / "a.onnx"
    path.write_bytes(model.SerializeToString())
    assert "refused, nothing was run" in error_of(path)
    assert "it wants to read another file" in error_of(path)


@pytest.mark.parametrize("where", ["node", "opset"])
def test_onnx_with_operators_of_others_is_refused(exports: Callable[[str], Path], tmp_path: Path, where: str) -> None:
    onnx, model = onnx_of(exports)
    if where == "node":
        model.graph.node[0].domain = "com.microsoft"
    else:
        model.opset_import.append(onnx.helper.make_opsetid("evil", 1))
    path = tmp_path / "a.onnx"
    path.write_bytes(model.SerializeToString())
    assert "which are not ONNX's own" in error_of(path)


def test_xml_is_data(exports: Callable[[str], Path], tmp_path: Path) -> None:
    """Entities stay as they are, unknown operators and weights beyond the file are errors."""
    source = exports("openvino")
    path = tmp_path / "a.xml"
    shutil.copy(source.with_suffix(".bin"), tmp_path / "a.bin")
    text = source.read_text(encoding="utf-8")
    secret = tmp_path / "secret"
    secret.write_text("hidden")
    head, _, rest = text.partition("?>")
    entity = f'{head}?><!DOCTYPE net [<!ENTITY leak SYSTEM "file://{secret}">]>' + rest.replace("drawn", "&leak;")
    path.write_text(entity, encoding="utf-8")
    assert load_exported(path).provenance["pose_model"] == "&leak;"
    path.write_text(text.replace('type="Convolution"', 'type="Evil"'), encoding="utf-8")
    assert "damaged file" in error_of(path)
    path.write_text(text, encoding="utf-8")
    assert load_exported(path).class_names == CLASSES
    (tmp_path / "a.bin").write_bytes(b"few")
    assert "damaged file" in error_of(path)
    (tmp_path / "a.bin").unlink()
    with pytest.raises(SkelactError, match=r"a\.bin: cannot be read \(No such file"):
        load_exported(path)


def test_what_counts_as_an_export(tmp_path: Path) -> None:
    assert is_exported(Path("a.onnx"))
    assert is_exported(tmp_path)
    assert not is_exported(Path("a.pth"))
