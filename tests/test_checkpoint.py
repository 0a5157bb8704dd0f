"""One file to another machine: our own checkpoints, everybody else's, and those made to do harm."""

from __future__ import annotations

import builtins
import errno
import json
import logging
import os
import pickle
import sys
import types
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from skelact.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from skelact.clips import ClipSettings
from skelact.errors import SkelactError
from skelact.model import STGCNPP, ModelSettings
from skelact.skeleton import COCO, HAND, NTU, OPENPOSE, Layout

CLASSES = ("walk", "wave", "fall", "sit down")
ARM = Layout("arm", ("shoulder", "elbow", "hand"), ((1, 0), (2, 1)), 0, flip_pairs=((1, 2),))

StateDict = dict[str, torch.Tensor]


def network(
    layout: Layout = COCO,
    in_channels: int = 3,
    num_classes: int = 4,
    channels: tuple[int, ...] = (12, 12, 24),
    strides: tuple[int, ...] = (1, 1, 2),
) -> STGCNPP:
    torch.manual_seed(0)
    settings = ModelSettings(in_channels, layout.num_joints, num_classes, channels, strides)
    return STGCNPP(settings, layout.adjacency()).eval()


def weights(*args: Any, **kwargs: Any) -> StateDict:
    return network(*args, **kwargs).state_dict()


def checkpoint_of(layout: Layout = COCO, **changes: Any) -> Checkpoint:
    model = network(layout)
    made = Checkpoint(model.settings, ClipSettings(layout), CLASSES, model.state_dict())
    return replace(made, **changes)


def assert_same_weights(found: StateDict, expected: StateDict) -> None:
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value), name


def error_of(path: Path, **overrides: Any) -> str:
    """The one line that says why a file is not loaded."""
    with pytest.raises(SkelactError) as error:
        load_checkpoint(path, **overrides)
    message = str(error.value)
    assert "\n" not in message
    return message


# --- our own -----------------------------------------------------------------------------------------------------


def test_a_checkpoint_comes_back_to_the_bit(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "waving.safetensors"
    saved = checkpoint_of(
        clips=ClipSettings(COCO, "bone-motion", clip_len=48, num_person=1),
        provenance={"data": "drawn people", "versions": {"torch": "2.6"}, "seeds": [1, 2]},
        metrics={"top1": 0.5, "on": "xsub_val"},
    )
    save_checkpoint(saved, path)
    loaded = load_checkpoint(path)

    assert_same_weights(loaded.state_dict, saved.state_dict)
    for name in ("model", "clips", "class_names", "provenance", "metrics"):
        assert getattr(loaded, name) == getattr(saved, name)
    assert [file.name for file in path.parent.iterdir()] == ["waving.safetensors"]


def test_the_network_that_comes_back_scores_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    saved = checkpoint_of()
    save_checkpoint(saved, path)
    x = torch.randn(2, 2, 16, 17, 3)
    built = load_checkpoint(path).build()
    assert not built.training
    with torch.no_grad():
        assert torch.equal(built(x), saved.build()(x))


def test_a_layout_of_ones_own_travels_in_the_file(tmp_path: Path) -> None:
    save_checkpoint(checkpoint_of(ARM), tmp_path / "arm.safetensors")
    assert load_checkpoint(tmp_path / "arm.safetensors").clips.layout == ARM


def test_any_program_can_read_what_is_inside(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_checkpoint(checkpoint_of(), path)
    with safe_open(path, framework="np") as file:
        metadata = file.metadata()
        assert "backbone.gcn.0.gcn.A" in set(file.keys())
    assert metadata["format"] == "skelact-checkpoint"
    assert json.loads(metadata["settings"])["class_names"] == list(CLASSES)


def test_names_and_strides_can_be_overridden_but_not_the_stream(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_checkpoint(checkpoint_of(), path)
    assert load_checkpoint(path, stream="joint").clips.stream == "joint"
    assert load_checkpoint(path, class_names=("a", "b", "c", "d")).class_names == ("a", "b", "c", "d")
    assert load_checkpoint(path, strides=(1, 1, 1)).model.strides == (1, 1, 1)
    renamed = replace(COCO, name="mine")
    assert load_checkpoint(path, layout=renamed).clips.layout == renamed

    assert "trained on stream 'joint', cannot be used on 'bone'" in error_of(path, stream="bone")
    assert "expected 4 class names, one an output, found 2" in error_of(path, class_names=("a", "b"))
    assert "has 17 joints, but layout 'openpose' has 18" in error_of(path, layout=OPENPOSE)
    assert "expected 3 strides, one a block, found 1" in error_of(path, strides=(1,))


# --- writing -----------------------------------------------------------------------------------------------------


@pytest.fixture
def as_nobody() -> Iterator[Callable[[], None]]:
    """A function that takes root's powers away until the test ends; others have none to lose."""
    if not hasattr(os, "geteuid"):
        pytest.skip("needs Unix permissions")
    user = os.geteuid()
    yield lambda: None if user else os.seteuid(65534)
    os.seteuid(user)


def test_no_permission_keeps_the_old_file(tmp_path: Path, as_nobody: Callable[[], None]) -> None:
    folder = tmp_path / "folder"
    path = folder / "a.safetensors"
    save_checkpoint(checkpoint_of(), path)
    before = path.read_bytes()
    new = checkpoint_of(class_names=("other",) * 4)
    folder.chmod(0o555)
    as_nobody()
    with pytest.raises(SkelactError, match=r"cannot write .*no permission to write there"):
        save_checkpoint(new, path)
    if os.getuid() == 0:
        os.seteuid(0)  # to look inside
    folder.chmod(0o755)
    assert path.read_bytes() == before
    assert list(folder.iterdir()) == [path]


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EFBIG, errno.EIO], ids=errno.errorcode.get)
def test_a_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int) -> None:
    path = tmp_path / "a.safetensors"
    save_checkpoint(checkpoint_of(), path)
    before = path.read_bytes()

    def half_written(self: Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(reason, os.strerror(reason), str(self))

    monkeypatch.setattr(Path, "write_bytes", half_written)
    with pytest.raises(SkelactError, match="cannot write"):
        save_checkpoint(checkpoint_of(class_names=("other",) * 4), path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs Unix resource limits")
def test_a_real_limit_on_file_size(tmp_path: Path) -> None:
    """The same without pretending: the system itself refuses to write more than 4 KiB."""
    import resource

    path = tmp_path / "a.safetensors"
    path.write_bytes(b"the old one")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(SkelactError, match="cannot write"):
            save_checkpoint(checkpoint_of(), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"the old one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_checkpoint_does_not_replace_a_folder(tmp_path: Path) -> None:
    with pytest.raises(SkelactError, match="expected a file, found a folder"):
        save_checkpoint(checkpoint_of(), tmp_path)


# --- damaged -----------------------------------------------------------------------------------------------------


def test_nothing_there_and_a_folder(tmp_path: Path) -> None:
    assert error_of(tmp_path / "none.pth").endswith("none.pth: no such checkpoint file")
    assert "no such checkpoint file" in error_of(tmp_path)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ""])
def test_own_checkpoints_cut_short(tmp_path: Path, suffix: str) -> None:
    whole = tmp_path / "whole.safetensors"
    save_checkpoint(checkpoint_of(), whole)
    content = whole.read_bytes()
    path = tmp_path / f"cut{suffix}"
    for length in (0, 1, 7, 8, 9, 10, 100, 2_000, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        assert ("damaged" if length else "an empty file") in error_of(path)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old format"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_foreign_checkpoints_cut_short(tmp_path: Path, zipped: bool, suffix: str) -> None:
    whole = tmp_path / "whole.pth"
    torch.save(weights(), whole, _use_new_zipfile_serialization=zipped)
    content = whole.read_bytes()
    path = tmp_path / f"joint{suffix}"
    for length in (0, 1, 3, 10, 100, 1_000, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        assert ("damaged file" if length else "an empty file") in error_of(path)


@pytest.mark.parametrize(
    "content", [b"", b"hello world, this is text", b"<html>404</html>", bytes(500), b"PK\x03\x04" + bytes(99)]
)
def test_files_of_another_kind(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "joint.pth"
    path.write_bytes(content)
    found = "another or a damaged file" if content else "an empty file"
    assert f"expected a checkpoint of skelact, mmaction2 or PYSKL, found {found}" in error_of(path)


def test_an_archive_with_a_broken_directory(tmp_path: Path) -> None:
    path = tmp_path / "joint.pth"
    torch.save(weights(), path)
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x01\x02")] = 0
    path.write_bytes(content)
    assert "damaged file" in error_of(path)


def test_safetensors_of_somebody_else(tmp_path: Path) -> None:
    path = tmp_path / "llm.safetensors"
    save_file({"embedding": torch.zeros(3)}, path)
    assert "found safetensors without its metadata" in error_of(path)
    save_file({"embedding": torch.zeros(3)}, path, {"format": "pt"})
    assert "found safetensors without its metadata" in error_of(path)


def with_settings(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """An own checkpoint whose settings were edited."""
    save_checkpoint(checkpoint_of(), path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    settings = json.loads(metadata["settings"])
    change(settings)
    save_file(weights(), path, {**metadata, "settings": json.dumps(settings)})
    return path


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("model", "channels", []),
        ("model", "channels", [12, 12, 48]),
        ("model", "channels", [12, -3, 24]),
        ("model", "strides", None),
        ("model", "strides", [1]),
        ("model", "strides", [1] * 5),
        ("model", "num_joints", 18),
        ("model", "num_joints", None),
        ("model", "in_channels", "3"),
        ("model", "num_classes", 9),
        ("model", "from the future", 1),
        ("clips", "stream", "depth"),
        ("clips", "dims", 5),
        ("clips", "layout", None),
        ("clips", "clip_len", 48.5),
        ("clips", "clip_len", 10**8),
        ("clips", "num_person", float("nan")),
        ("clips", "dims", 2.0),
        ("clips", "from the future", 1),
        ("metrics", "top1", 10**400),
    ],
)
def test_settings_that_do_not_fit_the_weights(tmp_path: Path, section: str, key: str, value: Any) -> None:
    path = with_settings(tmp_path / "a.safetensors", lambda settings: settings[section].update({key: value}))
    error_of(path)


def test_loading_leaves_the_callers_random_numbers_alone(tmp_path: Path) -> None:
    save_checkpoint(checkpoint_of(), tmp_path / "a.safetensors")
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    load_checkpoint(tmp_path / "a.safetensors").build()
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("section", ["metrics", "provenance"])
@pytest.mark.parametrize("value", [None, [], "x", 3])
def test_settings_of_another_kind(tmp_path: Path, section: str, value: Any) -> None:
    assert "expected a skelact checkpoint of version" in error_of(
        with_settings(tmp_path / "a.safetensors", lambda settings: settings.update({section: value}))
    )


def test_a_network_that_would_take_minutes_to_build_is_refused(tmp_path: Path) -> None:
    def deepen(settings: dict[str, Any]) -> None:
        settings["model"].update(channels=[8] * 100_000, strides=[1] * 100_000)

    told = error_of(with_settings(tmp_path / "a.safetensors", deepen))
    assert "expected a network of 100 blocks at most, found 100000" in told


def test_a_network_larger_than_the_memory_is_not_made(tmp_path: Path) -> None:
    def widen(settings: dict[str, Any]) -> None:
        settings["model"].update(channels=[3_000_000] * 2, strides=[1] * 2)

    told = error_of(with_settings(tmp_path / "a.safetensors", widen))
    assert "weights at least by its settings, found" in told


@pytest.mark.parametrize("key", ["model", "clips", "class_names", "provenance", "metrics"])
def test_settings_that_are_missing(tmp_path: Path, key: str) -> None:
    path = with_settings(tmp_path / "a.safetensors", lambda settings: settings.pop(key))
    assert "unreadable settings" in error_of(path)


# --- others' -----------------------------------------------------------------------------------------------------


def torch_file(path: Path, content: Any, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path, **options)
    return path


def mmaction2(state_dict: StateDict, **meta: Any) -> dict[str, Any]:
    return {"meta": {"epoch": 16, "iter": 100, **meta}, "state_dict": state_dict, "message_hub": {"log_scalars": {}}}


def pyskl(state_dict: StateDict) -> dict[str, Any]:
    renamed = OrderedDict((name.replace("cls_head.fc.", "cls_head.fc_cls."), v) for name, v in state_dict.items())
    return {"meta": {"config": "model = dict(type='RecognizerGCN')"}, "state_dict": renamed}


@pytest.mark.parametrize(
    "wrap",
    [
        mmaction2,
        pyskl,
        dict,
        OrderedDict,
        lambda w: {"model": w},
        lambda w: {"state_dict": {f"module.{name}": value for name, value in w.items()}},
        lambda w: {"state_dict": w, "optimizer": {"state": {0: {"momentum": torch.zeros(2)}}, "param_groups": []}},
        lambda w: {**w, "loss_cls.weight": "no tensor", 7: torch.zeros(1)},
    ],
    ids=["mmaction2", "pyskl", "bare", "ordered", "model", "module.", "optimizer", "other keys"],
)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old format"])
def test_whatever_wraps_the_weights(tmp_path: Path, wrap: Callable[[StateDict], Any], zipped: bool) -> None:
    expected = weights()
    path = torch_file(tmp_path / "joint.pth", wrap(expected), _use_new_zipfile_serialization=zipped)
    loaded = load_checkpoint(path)
    assert_same_weights(loaded.state_dict, expected)
    assert loaded.clips == ClipSettings(COCO, "joint")
    assert loaded.class_names == ("class_0", "class_1", "class_2", "class_3")
    x = torch.randn(1, 2, 16, 17, 3)
    with torch.no_grad():
        assert torch.equal(loaded.build()(x), network()(x))


@pytest.mark.parametrize(
    ("layout", "in_channels", "dims", "with_score"),
    [
        (COCO, 3, 2, True),
        (COCO, 2, 2, False),
        (OPENPOSE, 3, 2, True),
        (NTU, 3, 3, False),
        (NTU, 2, 2, False),
        (HAND, 2, 2, False),
    ],
    ids=lambda value: value.name if isinstance(value, Layout) else str(value),
)
def test_layout_and_channels_are_read_off_the_tensors(
    tmp_path: Path, layout: Layout, in_channels: int, dims: int, with_score: bool
) -> None:
    path = torch_file(tmp_path / "bone.pth", weights(layout, in_channels))
    num_person = 1 if layout == HAND else 2
    expected = ClipSettings(layout, "bone", dims=dims, with_score=with_score, num_person=num_person)
    assert load_checkpoint(path).clips == expected


@pytest.mark.parametrize(
    ("channels", "strides"),
    [
        ((12, 12), (1, 1)),
        ((12, 24), (1, 2)),
        ((12, 12, 24, 24, 48), (1, 1, 2, 1, 2)),
        ((18, 18, 18, 18, 18, 36), (1, 1, 1, 1, 1, 2)),
        ((12, 18, 36), (1, 1, 2)),
    ],
)
@pytest.mark.parametrize("num_classes", [2, 120])
def test_depth_width_and_classes_are_read_off_the_tensors(
    tmp_path: Path, channels: tuple[int, ...], strides: tuple[int, ...], num_classes: int
) -> None:
    path = torch_file(tmp_path / "joint.pth", weights(num_classes=num_classes, channels=channels, strides=strides))
    assert load_checkpoint(path).model == ModelSettings(3, 17, num_classes, channels, strides)


def test_strides_that_shapes_do_not_tell(tmp_path: Path) -> None:
    path = torch_file(tmp_path / "joint.pth", weights(strides=(1, 1, 1)))
    assert load_checkpoint(path).model.strides == (1, 1, 2)
    assert load_checkpoint(path, strides=(1, 1, 1)).model.strides == (1, 1, 1)
    assert "expected 3 strides, one a block, found 2" in error_of(path, strides=(1, 1))


def test_half_precision_weights_are_computed_in_full(tmp_path: Path) -> None:
    half = {name: v.half() if v.is_floating_point() else v for name, v in weights().items()}
    loaded = load_checkpoint(torch_file(tmp_path / "joint.pth", half))
    assert loaded.state_dict["cls_head.fc.weight"].dtype == torch.float32
    assert loaded.state_dict["backbone.data_bn.num_batches_tracked"].dtype == torch.int64


# --- the stream --------------------------------------------------------------------------------------------------


def test_frames_and_persons_of_a_clip_from_a_config(tmp_path: Path) -> None:
    config = (
        "train = [dict(type='UniformSampleFrames', clip_len=48), dict(type='FormatGCNInput', num_person=1)]\n"
        "val = [dict(num_clips=1, type='UniformSampleFrames', clip_len=48), dict(num_person=1, type='FormatGCNInput')]"
    )
    clips = load_checkpoint(torch_file(tmp_path / "j.pth", mmaction2(weights(), cfg=config))).clips
    assert (clips.clip_len, clips.num_person) == (48, 1)
    other = load_checkpoint(torch_file(tmp_path / "j2.pth", mmaction2(weights(), cfg=config + "clip_len=64"))).clips
    assert (other.clip_len, other.num_person) == (100, 1), "of two lengths neither is taken"


@pytest.mark.parametrize(
    ("code", "stream"), [("j", "joint"), ("b", "bone"), ("jm", "joint-motion"), ("bm", "bone-motion")]
)
def test_the_stream_from_mmengines_config(tmp_path: Path, code: str, stream: str) -> None:
    for n, feats in enumerate((f"feats=['{code}']", f"feats=[\n        '{code}',\n    ]", f"'feats': (\"{code}\",)")):
        config = f"train_pipeline = [dict(type='GenSkeFeat', dataset='coco', {feats}), dict(type='X')]"
        path = torch_file(tmp_path / f"epoch_{n}.pth", mmaction2(weights(), cfg=config))
        assert load_checkpoint(path).clips.stream == stream, feats


@pytest.mark.parametrize(
    ("name", "stream"),
    [
        ("stgcnpp_8xb16-joint-u100-80e_ntu60-xsub-keypoint-2d_20221228-86e1e77a.pth", "joint"),
        ("stgcnpp_8xb16-bone-u100-80e_ntu60-xsub-keypoint-3d_20221230-7f356072.pth", "bone"),
        ("stgcnpp_8xb16-joint-motion-u100-80e_ntu60-xsub-keypoint-2d_20221228-19a34aba.pth", "joint-motion"),
        ("stgcnpp_8xb16-bone-motion-u100-80e_ntu60-xsub-keypoint-3d_20221230-a2093cd5.pth", "bone-motion"),
        ("Joint_Motion.pth", "joint-motion"),
        ("stgcnpp_ntu60_xsub_hrnet/b.pth", "bone"),
        ("stgcnpp_ntu60_xsub_hrnet/bm/epoch_16.pth", "bone-motion"),
        ("jm/latest.pth", "joint-motion"),
        ("work_dirs/stgcnpp_8xb16-bone-motion-u100-80e_ntu60-xsub-keypoint-2d/epoch_16.pth", "bone-motion"),
        ("ntu60_j.pth", "joint"),
    ],
)
def test_the_stream_from_the_files_name(
    tmp_path: Path, name: str, stream: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = torch_file(tmp_path / name, weights())
    assert load_checkpoint(path).clips.stream == stream
    assert not caplog.records


def test_the_user_knows_better(tmp_path: Path) -> None:
    path = torch_file(tmp_path / "bone.pth", mmaction2(weights(), cfg="feats=['jm']"))
    assert load_checkpoint(path).clips.stream == "joint-motion"
    assert load_checkpoint(path, stream="bone-motion").clips.stream == "bone-motion"
    assert "expected one of joint, bone, joint-motion, bone-motion, found 'depth'" in error_of(path, stream="depth")


def test_a_stream_that_nothing_tells_is_joint_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = torch_file(tmp_path / "work_dirs" / "best.pth", weights())
    with caplog.at_level(logging.WARNING, logger="skelact"):
        assert load_checkpoint(path).clips.stream == "joint"
    (record,) = caplog.records
    assert "taking joint (set it with --stream)" in record.getMessage()
    caplog.clear()
    assert load_checkpoint(path, stream="bone").clips.stream == "bone"
    assert load_checkpoint(path, untold_stream="bone").clips.stream == "bone"
    assert not caplog.records


# --- class names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "meta",
    [
        {"dataset_meta": {"CLASSES": list(CLASSES)}},
        {"dataset_meta": {"classes": CLASSES}},
        {"dataset_meta": str({"classes": list(CLASSES)})},
        {"CLASSES": list(CLASSES)},
    ],
    ids=["CLASSES", "classes", "text", "old"],
)
def test_class_names_from_the_metadata(tmp_path: Path, meta: dict[str, Any]) -> None:
    path = torch_file(tmp_path / "joint.pth", mmaction2(weights(), **meta))
    assert load_checkpoint(path).class_names == CLASSES
    assert load_checkpoint(path, class_names=("a", "b", "c", "d")).class_names == ("a", "b", "c", "d")


@pytest.mark.parametrize(
    "meta",
    [
        {"dataset_meta": "neither a dict nor anything"},
        {"dataset_meta": "{[]: 1}"},
        {"dataset_meta": "-" * 200_000 + "1"},
        {"dataset_meta": {"CLASSES": "abcd"}},
        {"dataset_meta": {"CLASSES": None}},
        {"dataset_meta": {"CLASSES": torch.zeros(4)}},
        {"dataset_meta": torch.zeros(4), "cfg": torch.zeros(4)},
        {"dataset_meta": None, "cfg": None, "config": None},
    ],
    ids=["text", "no literal", "deep", "one text", "none", "tensor", "all tensors", "all none"],
)
def test_odd_metadata_is_no_reason_to_fail(tmp_path: Path, meta: dict[str, Any]) -> None:
    path = torch_file(tmp_path / "joint.pth", mmaction2(weights(), **meta))
    assert load_checkpoint(path).class_names == ("class_0", "class_1", "class_2", "class_3")


def test_a_wrong_number_of_class_names(tmp_path: Path) -> None:
    path = torch_file(tmp_path / "joint.pth", mmaction2(weights(), dataset_meta={"CLASSES": ["walk", "wave"]}))
    assert "expected 4 class names, one an output, found 2" in error_of(path)
    assert load_checkpoint(path, class_names=CLASSES).class_names == CLASSES
    assert "found 3" in error_of(path, class_names=CLASSES[:3])


# --- what is no ST-GCN++ -----------------------------------------------------------------------------------------


def test_a_layout_that_nobody_knows_must_be_told(tmp_path: Path) -> None:
    path = torch_file(tmp_path / "joint.pth", weights(ARM))
    message = error_of(path)
    assert "has 3 joints, a layout that skelact does not know" in message
    assert "--layout FILE.json" in message
    assert load_checkpoint(path, layout=ARM).clips.layout == ARM


def test_a_layout_that_does_not_fit(tmp_path: Path) -> None:
    path = torch_file(tmp_path / "joint.pth", weights())
    assert "has 17 joints, but layout 'nturgb+d' has 25" in error_of(path, layout=NTU)


@pytest.mark.parametrize(
    "content",
    [
        {},
        [],
        None,
        torch.zeros(3),
        {"conv1.weight": torch.zeros(3)},
        {"state_dict": {"backbone.stem.conv.weight": torch.zeros(3)}},
        {"state_dict": None},
        {"meta": {}, "state_dict": [1, 2]},
    ],
    ids=["empty", "list", "none", "tensor", "resnet", "other backbone", "no weights", "list of weights"],
)
def test_checkpoints_of_other_networks(tmp_path: Path, content: Any) -> None:
    message = error_of(torch_file(tmp_path / "joint.pth", content))
    assert "expected ST-GCN++ weights (backbone.gcn.0.gcn.A, ...), found" in message


def without(*parts: str) -> Callable[[StateDict], StateDict]:
    return lambda w: {name: value for name, value in w.items() if not any(part in name for part in parts)}


@pytest.mark.parametrize(
    "change",
    [
        without("cls_head"),
        without("fc.bias"),
        without("tcn"),
        without("gcn.1."),
        lambda w: {**w, "cls_head.fc.weight": torch.tensor(1.0)},
        lambda w: {**w, "cls_head.fc.weight": torch.zeros(4, 99)},
        lambda w: {**w, "backbone.gcn.0.gcn.A": torch.tensor(1.0)},
        lambda w: {**w, "backbone.gcn.0.gcn.A": torch.zeros(17, 17)},
        lambda w: {**w, "backbone.gcn.1.gcn.bn.weight": torch.tensor(1.0)},
        lambda w: {**w, "backbone.gcn.0.gcn.conv.weight": torch.zeros(3)},
        lambda w: {**w, "backbone.gcn.x.gcn.A": torch.zeros(3)},
        lambda w: {**w, "backbone.gcn.99999999.gcn.A": torch.zeros(3)},
        lambda w: {**w, "backbone.extra.weight": torch.zeros(3)},
        lambda w: {name: value.numpy() for name, value in w.items()},
    ],
)
def test_weights_that_almost_fit(tmp_path: Path, change: Callable[[StateDict], dict[str, Any]]) -> None:
    path = torch_file(tmp_path / "joint.pth", change(weights()))
    message = error_of(path)
    assert "expected ST-GCN++ weights, found" in message
    assert len(message) < 500, "not hundreds of names"


# --- metadata of classes that are not installed ------------------------------------------------------------------


@pytest.fixture
def mmengine() -> Iterator[types.ModuleType]:
    """A package that is there while a checkpoint is written; the test takes it away with ``uninstall``."""
    names = ("mmengine", "mmengine.logging", "mmengine.logging.history_buffer")
    modules = {name: types.ModuleType(name) for name in names}
    sys.modules.update(modules)
    leaf = modules[names[-1]]

    def belongs(kind: type) -> type:
        kind.__module__, kind.__qualname__ = names[-1], kind.__name__
        setattr(leaf, kind.__name__, kind)
        return kind

    class HistoryBuffer:
        def __init__(self, history: Any = ()) -> None:
            self.history = np.array(history)
            self.statistics_methods = {"min": type(self).min}  # pickled as getattr(HistoryBuffer, "min")

        def min(self) -> Any:
            return self.history.min()

    HistoryBuffer.min.__module__, HistoryBuffer.min.__qualname__ = names[-1], "HistoryBuffer.min"

    class ConfigDict(dict):
        pass

    class Listing(list):
        pass

    class Slotted:
        __slots__ = ("value",)

    class Made:
        def __init__(self, *args: Any) -> None: ...

        def __reduce__(self) -> tuple[Any, ...]:
            return Made, (1, "b"), {"c": 3}, iter([1, 2]), iter([("k", "v")])

        def append(self, item: Any) -> None: ...

        def __setitem__(self, key: Any, value: Any) -> None: ...

    for kind in (HistoryBuffer, ConfigDict, Listing, Slotted, Made):
        belongs(kind)
    yield leaf
    uninstall()


def uninstall() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "mmengine"]:
        del sys.modules[name]


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old format"])
@pytest.mark.parametrize("protocol", [2, 4])
def test_metadata_of_unknown_classes_is_passed_over(
    tmp_path: Path, mmengine: types.ModuleType, monkeypatch: pytest.MonkeyPatch, zipped: bool, protocol: int
) -> None:
    buffer, slotted = mmengine.HistoryBuffer([1.0, 2.0]), mmengine.Slotted()
    slotted.value = [1]
    content = mmaction2(
        weights(),
        dataset_meta={"CLASSES": list(CLASSES)},
        cfg=mmengine.ConfigDict(model=mmengine.ConfigDict(type="STGCN")),
        objects=[buffer, slotted, mmengine.Listing([1, 2]), mmengine.Made(), mmengine.HistoryBuffer],
        path=Path("work_dirs"),
        scores={"top1": np.float64(0.5), "history": np.zeros((2, 2)), "kind": torch.float16, "size": torch.Size([1])},
    )
    path = torch_file(tmp_path / "joint.pth", content, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    uninstall()
    imported: list[str] = []
    real_import = builtins.__import__

    def watched_import(name: str, *args: Any, **kwargs: Any) -> Any:
        imported.append(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", watched_import)
    loaded = load_checkpoint(path)
    monkeypatch.undo()

    assert_same_weights(loaded.state_dict, weights())
    assert loaded.class_names == CLASSES
    assert not [name for name in [*imported, *sys.modules] if name.startswith("mmengine")]


def test_even_installed_classes_are_not_run(tmp_path: Path, mmengine: types.ModuleType) -> None:
    """A checkpoint may not choose what is imported or made, not even from packages that are there."""
    made: list[object] = []
    path = torch_file(tmp_path / "joint.pth", mmaction2(weights(), buffer=mmengine.HistoryBuffer()))
    mmengine.HistoryBuffer.__new__ = lambda cls, *args: made.append(cls) or object.__new__(cls)
    mmengine.HistoryBuffer.__setstate__ = lambda self, state: made.append(self)
    load_checkpoint(path)
    assert made == []


# --- hostile -----------------------------------------------------------------------------------------------------


class Calls:
    """Pickles as a call: what loading this with ``torch.load`` of old would run."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def shell(sentinel: Path) -> str:
    return f"{sys.executable} -c \"open(r'{sentinel}', 'w')\""


def python(sentinel: Path) -> str:
    return f"open({str(sentinel)!r}, 'w')"


ATTACKS: dict[str, Callable[[Path], Any]] = {
    "os.system": lambda s: Calls(os.system, shell(s)),
    "eval": lambda s: Calls(builtins.eval, python(s)),
    "exec": lambda s: Calls(builtins.exec, python(s)),
    "open": lambda s: Calls(builtins.open, str(s), "w"),
    "torch.hub": lambda s: Calls(torch.hub.load, "owner/repository", "model"),
    "torch.load": lambda s: Calls(torch.load, str(s)),
    "torch.from_file": lambda s: Calls(torch.from_file, str(s), True, 4),
    "getattr": lambda s: Calls(builtins.getattr, Calls(builtins.__import__, "os"), "system"),
    "getattr of what may be called": lambda s: Calls(builtins.getattr, OrderedDict, "fromkeys"),
    "inside a tensor": lambda s: Calls(torch.storage._load_from_bytes, pickle.dumps(Calls(os.system, shell(s)), 2)),
    "inside an unknown class": lambda s: Calls(dict, [("a", [Calls(os.system, shell(s))])]),
    "a layer": lambda s: torch.nn.Conv2d(1, 1, 1),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
@pytest.mark.parametrize("place", ["in the metadata", "as a weight", "as everything"])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old format"])
def test_hostile_checkpoints_are_refused(
    tmp_path: Path, attack: Callable[[Path], Any], place: str, zipped: bool
) -> None:
    sentinel, payload = tmp_path / "sentinel", attack(tmp_path / "sentinel")
    if place == "in the metadata":
        content: Any = mmaction2(weights(), hook_msgs={"a": [payload]})
    elif place == "as a weight":
        content = {**weights(), "backbone.gcn.0.gcn.A": payload}
    else:
        content = payload
    path = torch_file(tmp_path / "joint.pth", content, _use_new_zipfile_serialization=zipped)
    message = error_of(path)
    assert "refused, nothing was run: expected weights and plain metadata, but it" in message
    assert not sentinel.exists()


def test_a_yolo_file_is_refused_and_its_kind_named(tmp_path: Path) -> None:
    """Ultralytics pickles whole networks."""
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.SiLU())
    path = torch_file(tmp_path / "yolo11n-pose.pt", {"model": model, "train_args": {}, "epoch": -1})
    message = error_of(path)
    assert "it wants to call torch.nn.modules" in message
    assert "let them save the state dict alone" in message


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_torchscript_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "joint.pt"
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    assert "found a TorchScript program" in error_of(path)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells what is mapped")
def test_a_checkpoint_that_is_loaded_may_be_replaced(tmp_path: Path) -> None:
    """Windows refuses to replace a file that is mapped into memory."""
    path = tmp_path / "a.safetensors"
    save_checkpoint(checkpoint_of(), path)
    loaded = load_checkpoint(path)
    assert loaded.state_dict
    assert str(path) not in Path("/proc/self/maps").read_text(encoding="utf-8")
