"""Against the reference implementation: the same draws, inputs and logits, file by file."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SHARED

from skelact import clips
from skelact.checkpoint import load_checkpoint
from skelact.clips import ClipSettings, normalise, prepare_clips
from skelact.model import STGCNPP, ModelSettings, count_operations, count_parameters
from skelact.skeleton import COCO, NTU, OPENPOSE, Layout, load_layout
from skelact.structures import Array

pytestmark = pytest.mark.shared

REFERENCE = SHARED / "reference"
FILES = sorted(REFERENCE.glob("*.npz"))
LAYOUTS = {"coco": COCO, "ntu3d": NTU, "openpose": OPENPOSE}
STREAMS = {"j": "joint", "b": "bone", "jm": "joint-motion", "bm": "bone-motion"}
CHECKPOINTS = {"coco": "stgcnpp_coco_random.pth", "ntu3d": "stgcnpp_nturgbd_random.pth"}


def files(*kinds: str) -> pytest.MarkDecorator:
    """One test for each reference file of these kinds; without the files, one that is skipped."""
    chosen = [path for path in FILES if path.name.startswith(kinds)] or [REFERENCE / "missing.npz"]
    return pytest.mark.parametrize("path", chosen, ids=[path.stem for path in chosen])


class Reference:
    """One file: ``{coco, ntu3d, openpose}_NAME_{j, b, jm, bm}_{1, 10}clip.npz``."""

    def __init__(self, path: Path) -> None:
        kind, *_, code, count = path.stem.split("_")
        with np.load(path) as file:
            self.values = dict(file)
        self.kind = kind
        self.num_clips = int(count.removesuffix("clip"))
        self.settings = ClipSettings(
            LAYOUTS[kind], STREAMS[code], dims=3 if kind == "ntu3d" else 2, with_score=kind != "ntu3d"
        )

    def __getitem__(self, name: str) -> Array:
        return self.values[name]

    @property
    def sample(self) -> tuple[Array, Array | None, tuple[int, int] | None]:
        shape = self.values.get("img_shape")
        img_shape = None if shape is None else (int(shape[0]), int(shape[1]))
        return self["keypoint"], self.values.get("keypoint_score"), img_shape

    def clips(self) -> Array:
        return prepare_clips(*self.sample, self.settings, self.num_clips)


@cache
def network(kind: str) -> STGCNPP:
    return load_checkpoint(REFERENCE / CHECKPOINTS[kind], stream="joint").build()


def test_every_kind_of_file_is_there() -> None:
    found = {path.stem.split("_")[0] for path in FILES}
    assert found == set(LAYOUTS)
    assert {path.stem.split("_")[-2] for path in FILES} == set(STREAMS)


@files("coco", "ntu3d", "openpose")
def test_the_same_frames_are_drawn(path: Path) -> None:
    reference = Reference(path)
    keypoint, _ = normalise(*reference.sample, reference.settings)
    frame_inds = clips.test_frame_inds(keypoint.shape[1], 100, reference.num_clips)
    np.testing.assert_array_equal(frame_inds.ravel(), reference["frame_inds"])


@files("ntu3d")
def test_the_same_frames_are_dropped(path: Path) -> None:
    reference = Reference(path)
    keypoint, _ = normalise(*reference.sample, reference.settings)
    assert keypoint.shape[1] == reference["total_frames_after"]


@files("coco", "ntu3d", "openpose")
def test_the_network_sees_the_same_input(path: Path) -> None:
    reference = Reference(path)
    expected = reference["model_input"]
    made = reference.clips()
    assert made.shape == (reference.num_clips, *expected.shape[1:])
    assert made.dtype == np.float32
    np.testing.assert_allclose(made[: len(expected)], expected, rtol=0, atol=1e-5)


@files("coco", "ntu3d")
def test_the_same_logits_and_scores_come_out(path: Path) -> None:
    reference = Reference(path)
    with torch.no_grad():
        logits = network(reference.kind)(torch.from_numpy(reference.clips()))
    np.testing.assert_allclose(logits.numpy(), reference["logits"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(logits.softmax(1).mean(0).numpy(), reference["prob"], rtol=0, atol=1e-5)


@files("openpose")
def test_the_same_graph(path: Path) -> None:
    np.testing.assert_allclose(OPENPOSE.adjacency(), Reference(path)["A"], rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", ["by number of joints", "by name"])
def test_a_published_hand_checkpoint(shared: Path, name: str) -> None:
    """PYSKL's: 21 joints, x and y only, six blocks with one doubling, 40 gestures, a bare state dict."""
    folder = shared / "reference" / "hand"
    layout = load_layout("hand") if name == "by name" else None
    checkpoint = load_checkpoint(folder / "stgcnpp_hand_40classes.pth", stream="joint", layout=layout)

    assert checkpoint.clips.layout.name == "hand"
    assert (checkpoint.model.in_channels, checkpoint.clips.dims, checkpoint.clips.with_score) == (2, 2, False)
    assert (len(checkpoint.class_names), checkpoint.model.strides) == (40, (1, 1, 1, 1, 1, 2))

    with np.load(folder / "reference.npz") as file:
        values = dict(file)
    with torch.no_grad():
        logits = checkpoint.build()(torch.from_numpy(values["model_input"])).numpy()
    np.testing.assert_allclose(logits, values["logits"], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("layout", "parameters", "operations"),
    [(COCO, 1_393_016, 1.948e9), (NTU, 1_403_144, 2.956e9)],
    ids=["coco", "nturgb+d"],
)
def test_the_published_size(layout: Layout, parameters: int, operations: float) -> None:
    model = STGCNPP(ModelSettings(3, layout.num_joints, 60), layout.adjacency()).eval()
    assert count_parameters(model) == parameters
    assert count_operations(model, (2, 100, layout.num_joints, 3)) == pytest.approx(operations, rel=0.02)
