"""For prediction the network is folded: other steps, the same logits."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from plain_stgcnpp import PlainSTGCNPP
from stand_ins import CLASSES, classifier_file

import skelact.folded
from skelact.checkpoint import load_checkpoint
from skelact.classifier import Classifier
from skelact.clips import prepare_clips
from skelact.folded import MAX_ROOMS, FoldedSTGCNPP, fold
from skelact.model import PUBLISHED_CHANNELS, PUBLISHED_STRIDES, STGCNPP, ModelSettings
from skelact.skeleton import COCO, HAND, NTU, Layout
from skelact.structures import Array

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's, of TorchScript

PUBLISHED = (PUBLISHED_CHANNELS, PUBLISHED_STRIDES)
SHAPES: dict[str, tuple[Layout, int, tuple[tuple[int, ...], tuple[int, ...]], int, int]] = {
    # layout, channels of the input, those and the strides of the blocks, persons, frames
    "as published": (COCO, 3, PUBLISHED, 2, 100),
    "25 joints in 3D": (NTU, 3, PUBLISHED, 2, 64),
    "one person": (COCO, 3, ((12, 24), (1, 2)), 1, 32),
    "x and y only": (HAND, 2, ((12, 12, 24), (1, 2, 1)), 1, 33),
    "strides of 3 and 2": (COCO, 3, ((12, 24, 24), (1, 3, 2)), 2, 50),
    "stride without more channels": (COCO, 3, ((12, 12), (1, 2)), 2, 9),
    "fewer channels, then more": (COCO, 3, ((30, 12, 18), (1, 1, 1)), 3, 20),
    "one frame": (COCO, 3, ((12, 24), (1, 2)), 2, 1),
    "more than is computed at once": (COCO, 3, ((12, 24), (1, 2)), 1, 2200),
    "shorter than a kernel": (COCO, 3, ((12, 24), (2, 2)), 2, 3),
}


def trained(settings: ModelSettings, layout: Layout) -> PlainSTGCNPP:
    """Layer by layer, with weights and statistics as training leaves them: some scales are negative."""
    torch.manual_seed(0)
    network = PlainSTGCNPP(settings, layout.adjacency())
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            for values, low, high in (
                (module.running_mean, -0.2, 0.2),
                (module.running_var, 0.5, 2),
                (module.weight, -0.5, 1.5),
                (module.bias, -0.3, 0.3),
            ):
                torch.nn.init.uniform_(values, low, high)  # type: ignore[arg-type]
            torch.nn.init.zeros_(module.weight[:2])  # channels that were given up
    torch.nn.init.normal_(network.cls_head["fc"].weight, std=0.3)  # type: ignore[arg-type]
    return network.eval()


def folded(plain: PlainSTGCNPP, settings: ModelSettings, layout: Layout) -> FoldedSTGCNPP:
    network = STGCNPP(settings, layout.adjacency())
    network.load_state_dict(plain.state_dict())
    return fold(network.eval())


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_logits_are_those_of_the_plain_network(
    shape: tuple[Layout, int, tuple[tuple[int, ...], tuple[int, ...]], int, int],
) -> None:
    layout, in_channels, blocks, num_persons, num_frames = shape
    settings = ModelSettings(in_channels, layout.num_joints, 7, *blocks)
    plain = trained(settings, layout)
    network = folded(plain, settings, layout)
    clips = torch.randn(3, num_persons, num_frames, layout.num_joints, in_channels)
    clips[0, -1] = clips[1] = 0  # an empty slot, and nobody at all
    with torch.inference_mode():
        expected = plain(clips)
        torch.testing.assert_close(network(clips), expected, rtol=0, atol=1e-4)
        traced = torch.jit.trace(network, clips, check_trace=False)  # as exports are made
        torch.testing.assert_close(traced(clips[:1]), expected[:1], rtol=0, atol=1e-4)
    assert expected.std() > 0.01


def test_empty_slots_are_not_computed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ModelSettings(3, 17, 5, (12, 24), (1, 2))
    plain = trained(settings, COCO)
    network = folded(plain, settings, COCO)
    computed: list[int] = []
    features = network._features

    def counted(people: torch.Tensor) -> torch.Tensor:
        computed.append(len(people))
        return features(people)

    monkeypatch.setattr(network, "_features", counted)
    clips = torch.randn(3, 2, 16, 17, 3)
    clips[:, 1] = 0
    with torch.inference_mode():
        for _ in range(2):
            torch.testing.assert_close(network(clips), plain(clips), rtol=0, atol=1e-4)
        assert computed == [1, 3, 3], "nobody, once, and three people twice"
        shorter = clips[:, :, :9]
        torch.testing.assert_close(network(shorter), plain(shorter), rtol=0, atol=1e-4)


def test_it_predicts_in_any_mode() -> None:
    settings = ModelSettings(3, 17, 5, (12, 24), (1, 2))
    plain = trained(settings, COCO)
    network = folded(plain, settings, COCO)
    clips = torch.randn(2, 2, 11, 17, 3)
    expected = plain(clips).detach()
    for mode in (torch.inference_mode, torch.no_grad, torch.enable_grad):
        with mode():
            torch.testing.assert_close(network(clips), expected, rtol=0, atol=1e-4)


def test_threads_do_not_disturb_each_other() -> None:
    settings = ModelSettings(3, 17, 5, (12, 24), (1, 2))
    plain = trained(settings, COCO)
    network = folded(plain, settings, COCO)
    clips = torch.randn(60, 2, 16, 17, 3)

    def logits(clip: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return network(clip[None])

    with torch.inference_mode(), ThreadPoolExecutor(4) as pool:
        torch.testing.assert_close(torch.cat(list(pool.map(logits, clips))), plain(clips), rtol=0, atol=1e-4)


def test_clips_of_other_lengths_leave_no_trace() -> None:
    settings = ModelSettings(3, 17, 5, (12, 24), (1, 2))
    plain = trained(settings, COCO)
    network = folded(plain, settings, COCO)
    with torch.inference_mode():
        for num_frames, num_persons in ((9, 1), (40, 3), (9, 1), (300, 2), (40, 3), (9, 2)):
            clips = torch.randn(2, num_persons, num_frames, 17, 3)
            torch.testing.assert_close(network(clips), plain(clips), rtol=0, atol=1e-4)


def test_memory_does_not_grow_with_lengths_of_clips() -> None:
    """What lies between the steps has one place, and that is as large as the longest clip needs it."""
    settings = ModelSettings(3, 17, 5, (12, 24), (1, 2))
    network = folded(trained(settings, COCO), settings, COCO)
    with torch.inference_mode():
        for num_frames in (*range(60, 10, -1), 100, 10):
            network(torch.randn(1, 1, num_frames, 17, 3))
            rooms = skelact.folded._rooms._made.values()
            assert len(rooms) <= MAX_ROOMS
            assert len({room.between.untyped_storage().data_ptr() for room in rooms}) == 1


def test_a_broken_pose_is_not_taken_for_an_empty_slot_and_spoils_no_other_clip() -> None:
    settings = ModelSettings(3, 17, 5, (12, 24), (1, 2))
    plain = trained(settings, COCO)
    network = folded(plain, settings, COCO)
    broken, good = torch.zeros(1, 2, 8, 17, 3), torch.randn(1, 2, 8, 17, 3)
    broken[0, 0, 0, 0, 0] = torch.nan
    with torch.inference_mode():
        assert not torch.isfinite(network(broken)).all()
        torch.testing.assert_close(network(good), plain(good), rtol=0, atol=1e-4)


def test_predictions_come_from_the_folded_network(tmp_path: Path) -> None:
    path = classifier_file(tmp_path / "a.safetensors")
    classifier = Classifier([path], device="cpu")
    assert [type(network) for network in classifier.networks] == [FoldedSTGCNPP]
    keypoint = np.random.default_rng(0).normal(500, 100, (2, 40, 17, 2)).astype(np.float32)
    scores = classifier.scores(keypoint, None, None, 3)
    assert scores.shape == (len(CLASSES),)
    with torch.inference_mode():
        clips = prepare_clips(keypoint, None, None, classifier.members[0].checkpoint.clips, 3)
        expected = load_checkpoint(path).build()(torch.from_numpy(clips)).softmax(1).mean(0)
    np.testing.assert_allclose(scores, expected.numpy(), atol=1e-5)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("checkpoint", "pattern"),
    [("stgcnpp_coco_random.pth", "coco_*"), ("stgcnpp_nturgbd_random.pth", "ntu3d_*"), ("hand", "hand/reference")],
)
def test_the_logits_are_those_of_the_reference(shared: Path, checkpoint: str, pattern: str) -> None:
    folder = shared / "reference"
    path = folder / "hand" / "stgcnpp_hand_40classes.pth" if checkpoint == "hand" else folder / checkpoint
    network = fold(load_checkpoint(path, stream="joint").build())
    files = sorted(folder.glob(f"{pattern}.npz"))
    assert files
    for file in files:
        values: dict[str, Array] = dict(np.load(file))
        clips = values["model_input"]
        with torch.inference_mode():
            logits = network(torch.from_numpy(clips)).numpy()
        np.testing.assert_allclose(logits, values["logits"][: len(clips)], rtol=0, atol=1e-4)
