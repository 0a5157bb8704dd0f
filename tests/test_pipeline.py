"""From sources to answers, with people whose joints are known and networks with random weights."""

from __future__ import annotations

import logging
import pickle
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import drawn_people
import numpy as np
import pytest
import torch
from stand_ins import CLASSES, FPS, SIZE, DrawnPoses, Film, Hostile, classifier_file, film, published_file

from skelact.checkpoint import load_checkpoint
from skelact.classifier import Classifier
from skelact.clips import prepare_clips, tracks_keypoint
from skelact.errors import SkelactError
from skelact.pipeline import FollowedFrames, _output_paths, enough_stride, estimate_poses, predict
from skelact.pose import PoseModel
from skelact.skeleton import NTU, OPENPOSE
from skelact.structures import Array, Frame, FramePoses, PredictionSet, SourceResult, VideoInfo
from skelact.timeline import TimelineSettings
from skelact.video import find_videos, probe_video, read_frames
from skelact.writers import write_json


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Film]:
    folder = tmp_path_factory.mktemp("films")
    scenes = {
        "wave": drawn_people.scene_of("wave", seed=1),
        "handshake": drawn_people.scene_of("shake_hands", seed=2),
        "nobody": drawn_people.nobody(seed=3),
    }
    return {name: film(folder / f"{name}.mp4", scene) for name, scene in scenes.items()}


@pytest.fixture
def drawn(films: dict[str, Film], monkeypatch: pytest.MonkeyPatch) -> DrawnPoses:
    stand_in = DrawnPoses(list(films.values()))
    monkeypatch.setattr("skelact.pipeline.PoseModel", stand_in.load)
    return stand_in


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classifier_file(tmp_path_factory.mktemp("model") / "small.safetensors")


@pytest.fixture(scope="module")
def model_3d(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classifier_file(tmp_path_factory.mktemp("model") / "small3d.safetensors", layout=NTU, dims=3)


def answer(*sources: str | Path, **options: Any) -> PredictionSet:
    """``predict`` without bars and with one clip, unless told otherwise."""
    return predict(sources, **{"clips": 1, "progress": False, "device": "cpu", **options})


def scores_of(*sources: str | Path, **options: Any) -> Array:
    """The scores of the only prediction."""
    (result,) = answer(*sources, **options).results
    assert result.error is None
    (prediction,) = result.predictions
    return prediction.scores


def annotation(name: str, shape: tuple[int, ...] = (1, 40, 17, 2), seed: int = 0, **fields: Any) -> dict[str, Any]:
    """A sample of a pose pickle: people (2D or 3D) at random places, who move."""
    rng = np.random.default_rng(seed)
    keypoint = rng.normal(0, 20, shape).cumsum(axis=1) + 500
    sample = {"frame_dir": name, "label": 0, "img_shape": (1080, 1920), "total_frames": shape[1], "keypoint": keypoint}
    if shape[-1] == 2:
        sample["keypoint_score"] = rng.uniform(0.5, 1, shape[:3])
    return {**sample, **fields}


def pickled(path: Path, *samples: dict[str, Any]) -> Path:
    path.write_bytes(pickle.dumps({"split": {"val": []}, "annotations": list(samples)}))
    return path


# --- one source --------------------------------------------------------------------------------------------------


def test_a_video_of_one_person(drawn: DrawnPoses, films: dict[str, Film], model: Path) -> None:
    predictions = answer(films["wave"].path, model=model, pose_model="some-pose.pt")
    (result,) = predictions.results
    assert drawn.loaded == [("some-pose.pt", "cpu")]
    assert (result.source, result.error, result.warnings) == (str(films["wave"].path), None, ())
    assert predictions.class_names == CLASSES
    (prediction,) = result.predictions
    assert prediction.track_ids == (1,)
    assert (prediction.start_s, prediction.stop_s) == (0.0, pytest.approx(1.6, abs=0.01))
    assert prediction.scores.shape == (4,)
    assert prediction.scores.sum() == pytest.approx(1)
    assert prediction.score == prediction.scores.max() == prediction.top_k[0][1]
    assert prediction.class_name == prediction.top_k[0][0] == CLASSES[prediction.scores.argmax()]
    assert [score for _, score in prediction.top_k] == sorted(prediction.scores, reverse=True)
    assert result.sequence is not None
    assert result.sequence.num_frames == 24
    assert result.sequence.provenance.items() >= {**drawn.provenance, "tracker": "bytetrack"}.items()


def test_frames_that_nobody_needs_are_not_posed(films: dict[str, Film], model: Path, monkeypatch: Any) -> None:
    posed: list[int] = []

    class Counting(DrawnPoses):
        def detect(self, frame: Frame) -> FramePoses:
            posed.append(frame.index)
            return super().detect(frame)

    monkeypatch.setattr("skelact.pipeline.PoseModel", Counting(list(films.values())).load)
    (result,) = answer(films["wave"].path, model=model, stride=3).results
    assert posed == list(range(0, 24, 3))
    assert result.sequence is not None
    assert (result.sequence.num_frames, result.sequence.provenance["stride"]) == (24, 3)
    (track,) = result.sequence.tracks
    assert track.present.all(), "those in between are interpolated"
    true = np.stack([joints[0] for joints, _ in films["wave"].joints])
    assert np.abs(track.keypoint - true).mean() < 2, "pixels"


def test_a_stride_fills_gaps_as_long_as_without_one() -> None:
    """In frames of the video: six are filled, fourteen are not."""
    followed = FollowedFrames("bytetrack", VideoInfo("film.mp4", (360, 640), 30.0, 120), stride=2)
    keypoint = np.random.default_rng(0).uniform((300, 100), (360, 300), (1, 17, 2)).astype(np.float32)
    box = np.array([[300, 100, 360, 300]], np.float32)
    frames = (Frame(t, t / 30, np.zeros((360, 640, 3), np.uint8)) for t in range(120))
    for frame in followed.look_through(frames):
        N = 0 if frame.index in (*range(20, 26), *range(60, 74)) else 1
        score = np.full((1, 17), 0.9, np.float32)
        found = (keypoint[:N], score[:N], box[:N], np.full(N, 0.9, np.float32))
        followed.follow(frame, FramePoses(frame.index, frame.time_s, *found))
    (track,) = followed.sequence({}, clean=False).tracks
    assert np.flatnonzero(~track.present).tolist() == list(range(59, 74))


def test_auto_leaves_what_the_model_looks_at(model: Path) -> None:
    classifier, timeline = Classifier([model], device="cpu"), TimelineSettings((2.0,))
    for fps, frames, granularity, stride in (
        (30, 30, "auto", 1),  # 16 frames of a second: every other would be too few
        (30, 90, "auto", 2),
        (120, 1200, "auto", 9),  # no fewer than 12.5 a second
        (30, 3000, "timeline", 2),
        (25, 0, "auto", 2),  # a length that is not told
        (10, 3000, "auto", 1),
    ):
        info = VideoInfo("film.mp4", (180, 320), float(fps), frames)
        assert enough_stride(info, classifier, granularity, timeline) == stride, (fps, frames, granularity)


@pytest.mark.parametrize("stride", [0, -1, "all", 1.5])
def test_strides_that_are_none(drawn: DrawnPoses, films: dict[str, Film], model: Path, stride: Any) -> None:
    with pytest.raises(SkelactError, match='stride: expected a whole number from 1 on, or "auto", found'):
        answer(films["wave"].path, model=model, stride=stride)


def test_two_people_fill_two_slots(drawn: DrawnPoses, films: dict[str, Film], model: Path) -> None:
    (result,) = answer(films["handshake"].path, model=model).results
    assert sorted(result.predictions[0].track_ids) == [1, 2]


def test_the_scores_are_those_computed_by_hand(drawn: DrawnPoses, films: dict[str, Film], model: Path) -> None:
    (result,) = answer(films["handshake"].path, model=model, clips=10).results
    assert result.sequence is not None
    checkpoint = load_checkpoint(model)
    keypoint, score = tracks_keypoint(result.sequence.tracks, 24)
    clips = prepare_clips(keypoint, score, (SIZE[1], SIZE[0]), checkpoint.clips, num_clips=10)
    assert clips.shape == (10, 2, 16, 17, 3)
    with torch.no_grad():
        expected = checkpoint.build()(torch.from_numpy(clips)).softmax(dim=1).mean(dim=0)
    np.testing.assert_allclose(result.predictions[0].scores, expected.numpy(), atol=1e-6)
    assert np.ptp(expected.numpy()) > 0.05, "random, but not indifferent"


def test_the_same_call_gives_the_same_scores(drawn: DrawnPoses, films: dict[str, Film], model: Path) -> None:
    first, again = (scores_of(films["handshake"].path, model=model, clips=10) for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_the_order_of_detections_changes_nothing(drawn: DrawnPoses, films: dict[str, Film], model: Path) -> None:
    as_drawn = scores_of(films["handshake"].path, model=model, clips=10)
    drawn.swapped = True
    np.testing.assert_allclose(scores_of(films["handshake"].path, model=model, clips=10), as_drawn, rtol=0, atol=1e-6)


def test_ten_clips_are_not_one(drawn: DrawnPoses, films: dict[str, Film], model: Path) -> None:
    one, ten = (answer(films["wave"].path, model=model, clips=clips) for clips in (1, 10))
    assert (one.settings["clips"], ten.settings["clips"]) == (1, 10)
    assert not np.array_equal(one.results[0].predictions[0].scores, ten.results[0].predictions[0].scores)


def test_topk_lists_the_best_and_no_more_than_there_are(drawn: DrawnPoses, films: dict[str, Film], model: Path) -> None:
    for topk, listed in ((1, 1), (3, 3), (99, 4)):
        (result,) = answer(films["wave"].path, model=model, topk=topk).results
        assert len(result.predictions[0].top_k) == listed


def test_nobody_to_be_seen_is_an_error(drawn: DrawnPoses, films: dict[str, Film], tmp_path: Path, model: Path) -> None:
    (result,) = answer(films["nobody"].path, model=model, out_video=tmp_path / "overlay.mp4").results
    assert result.predictions == ()
    assert "expected people, found nobody in 24 frames; are they large enough to see" in str(result.error)
    assert result.sequence is not None, "what was found out all the same"
    assert (result.sequence.num_frames, result.sequence.tracks) == (24, ())
    assert not (tmp_path / "overlay.mp4").exists()


def test_one_frame_is_enough(drawn: DrawnPoses, tmp_path: Path, model: Path) -> None:
    still = film(tmp_path / "still.mp4", drawn_people.scene_of("wave", seed=1), seconds=1 / FPS)
    drawn.films = [still]
    (result,) = answer(still.path, model=model, clips=10).results
    assert result.sequence is not None
    assert result.sequence.num_frames == 1
    assert result.predictions[0].scores.sum() == pytest.approx(1)


def test_a_model_as_mmaction2_publishes_it(drawn: DrawnPoses, films: dict[str, Film], tmp_path: Path) -> None:
    names = ("drink", "eat", "read")
    predictions = answer(films["wave"].path, model=published_file(tmp_path / "best.pth", names))
    assert predictions.class_names == names
    (described,) = predictions.models
    assert (described["stream"], described["layout"], described["num_classes"]) == ("joint", "coco", 3)


# --- several sources ---------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, films: dict[str, Film]) -> Path:
    """A folder of videos, some deeper, among other files."""
    (tmp_path / "videos" / "deep" / "deeper").mkdir(parents=True)
    shutil.copy(films["wave"].path, tmp_path / "videos" / "b.MP4")
    shutil.copy(films["handshake"].path, tmp_path / "videos" / "deep" / "deeper" / "a.mp4")
    (tmp_path / "videos" / "notes.txt").write_text("no video")
    (tmp_path / "videos" / "deep" / "poses.pkl").write_bytes(b"")
    (tmp_path / "videos" / ".hidden.mp4").write_bytes(b"")
    return tmp_path / "videos"


def test_a_folder_gives_the_videos_in_it(drawn: DrawnPoses, folder: Path, model: Path) -> None:
    seen: list[SourceResult] = []
    predictions = answer(folder, model=model, on_result=seen.append)
    assert [result.source for result in predictions.results] == [
        str(folder / "b.MP4"),
        str(folder / "deep" / "deeper" / "a.mp4"),
    ]
    assert seen == list(predictions.results)
    assert [len(result.predictions[0].track_ids) for result in predictions.results] == [1, 2]
    assert len(drawn.loaded) == 1, "the pose model is loaded once"


def test_a_folder_without_videos(drawn: DrawnPoses, tmp_path: Path, model: Path) -> None:
    (tmp_path / "notes.txt").write_text("no video")
    with pytest.raises(SkelactError, match="expected videos in this folder, found none"):
        answer(tmp_path, model=model)
    with pytest.raises(SkelactError, match="expected at least one video"):
        answer(model=model)


def test_an_empty_folder_beside_others_leaves_them_alone(
    drawn: DrawnPoses, films: dict[str, Film], tmp_path: Path, model: Path
) -> None:
    (tmp_path / "empty").mkdir()
    first, second = answer(tmp_path / "empty", films["wave"].path, model=model).results
    assert "found a folder" in str(first.error)
    assert second.error is None


def test_one_that_fails_leaves_the_others_alone(drawn: DrawnPoses, films: dict[str, Film], model: Path) -> None:
    wave = films["wave"].path
    missing = wave.with_name("missing.mp4")
    predictions = answer(missing, wave, missing, wave, model=model)
    errors = [result.error for result in predictions.results]
    assert errors == [f"{missing}: no such file; give the path of a video", None] * 2
    assert predictions.results[0].sequence is None
    assert [len(result.predictions) for result in predictions.results] == [0, 1, 0, 1]


def test_an_unexpected_error_is_one_sources_own_unless_debugging(
    drawn: DrawnPoses, films: dict[str, Film], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = drawn.detect

    def detect(frame: Any) -> Any:
        if frame.index == 3 and drawn._film is films["wave"]:
            raise ZeroDivisionError("of all things")
        return real(frame)

    monkeypatch.setattr(drawn, "detect", detect)
    wave, handshake = films["wave"].path, films["handshake"].path
    bad, good = answer(wave, handshake, model=model).results
    assert bad.error == f"{wave}: ZeroDivisionError: of all things (--debug shows where)"
    assert good.error is None
    with pytest.raises(ZeroDivisionError):
        answer(wave, handshake, model=model, debug=True)


def test_outputs_have_names_that_differ_where_case_does_not_count(tmp_path: Path) -> None:
    found = [tmp_path / "a" / "Wave.mp4", tmp_path / "b" / "wave.MP4", tmp_path / "c" / "wave.mp4"]
    outputs = _output_paths(found, found, tmp_path / "out", ".json")
    assert [path.name for path in outputs if path] == ["Wave.json", "wave.MP4.json", "wave-2.json"]


# --- pickles -----------------------------------------------------------------------------------------------------


def test_a_pickle_of_2d_poses_needs_no_pose_model(drawn: DrawnPoses, tmp_path: Path, model: Path) -> None:
    sample = annotation("S001", (2, 40, 17, 2))
    path = pickled(tmp_path / "poses.pkl", sample)
    (result,) = answer(path, model=model, clips=10).results
    assert drawn.loaded == []
    assert result.source == f"{path}#S001"
    assert result.predictions[0].track_ids == (1, 2)
    checkpoint = load_checkpoint(model)
    clips = prepare_clips(sample["keypoint"], sample["keypoint_score"], sample["img_shape"], checkpoint.clips, 10)
    with torch.no_grad():
        expected = checkpoint.build()(torch.from_numpy(clips)).softmax(dim=1).mean(dim=0)
    np.testing.assert_allclose(result.predictions[0].scores, expected.numpy(), atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 40, 17, 2), (0, 40, 17, 2), (1, 0, 17, 2)])
def test_each_sample_of_a_pickle_has_its_answer(
    drawn: DrawnPoses, tmp_path: Path, model: Path, shape: tuple[int, ...]
) -> None:
    empty = annotation("empty", shape, keypoint=np.zeros(shape))
    samples = [annotation("a", seed=1), empty, annotation("b", seed=2)]
    results = answer(pickled(tmp_path / "poses.pickle", *samples), model=model).results
    assert [result.source.rpartition("#")[2] for result in results] == ["a", "empty", "b"]
    assert [len(result.predictions) for result in results] == [1, 0, 1]
    assert f"poses.pickle#empty: expected people, found nobody in {shape[1]} frames" in str(results[1].error)


@pytest.mark.parametrize("fps", [1e-300, -30.0, float("nan"), 1e9, "30"])
def test_a_rate_that_is_none_is_refused(drawn: DrawnPoses, tmp_path: Path, model: Path, fps: Any) -> None:
    (result,) = answer(pickled(tmp_path / "poses.pkl", annotation("a", fps=fps)), model=model).results
    assert "sample a, field 'fps': expected a number from 0.1 to 1000, found" in str(result.error)


def test_where_a_recording_was_paused_nobody_is_seen(
    drawn: DrawnPoses, films: dict[str, Film], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def paused(path: Path, *told: Any) -> Iterator[Frame]:
        yield from (replace(f, time_s=f.time_s + 60 * (f.index >= 12)) for f in read_frames(path))

    before = estimate_poses(films["wave"].path, drawn)  # type: ignore[arg-type]
    monkeypatch.setattr("skelact.pipeline.read_frames", paused)
    sequence = estimate_poses(films["wave"].path, drawn)  # type: ignore[arg-type]
    assert sequence.info.fps == pytest.approx(before.info.fps)
    assert sequence.cuts_s == pytest.approx((60 + 12 / before.info.fps,))
    settings = {"granularity": "timeline", "window_s": 0.5, "step_s": 0.1, "min_duration_s": 0.1}
    (result,) = answer(films["wave"].path, model=model, unknown_below=None, **settings).results
    pause = 12 / before.info.fps + 1e-6, 60 + 12 / before.info.fps - 1e-6
    assert result.predictions
    assert all(p.stop_s <= pause[0] or p.start_s >= pause[1] for p in result.predictions)


def test_a_json_that_cannot_be_written_takes_nothing_from_the_other_sources(
    drawn: DrawnPoses, films: dict[str, Film], tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(content: Any, path: str) -> None:
        if "handshake" in path:
            raise SkelactError(f"cannot write {path}: the disk is full")
        write_json(content, path)

    monkeypatch.setattr("skelact.pipeline.write_json", full)
    videos = [films["handshake"].path, films["wave"].path]
    results = answer(*videos, model=model, json_dir=tmp_path / "json").results
    assert [result.error is None for result in results] == [False, True]
    assert results[0].predictions
    assert [path.name for path in (tmp_path / "json").iterdir()] == ["wave.json"]
    assert [result.sequence is None for result in results] == [False, True], "what is written isn't kept"


def test_a_sample_of_another_layout_is_named(drawn: DrawnPoses, tmp_path: Path, model: Path) -> None:
    path = pickled(tmp_path / "poses.pkl", annotation("a"), annotation("fourteen", (1, 40, 14, 2)))
    (result,) = answer(path, model=model).results
    assert f"{path}: sample fourteen: " in str(result.error)
    assert "expects keypoints of layout 'coco' as (persons, frames, 17, 2)" in str(result.error)


def test_a_pickle_of_3d_skeletons(drawn: DrawnPoses, tmp_path: Path, model: Path, model_3d: Path) -> None:
    path = pickled(tmp_path / "ntu.pkl", annotation("a", (2, 50, 25, 3)), annotation("b", (1, 30, 25, 3), seed=1))
    results = answer(path, model=model_3d, clips=10).results
    assert len(results) == 2
    for result in results:
        assert result.error is None
        assert result.predictions[0].scores.sum() == pytest.approx(1)
    results = answer(path, model=model).results
    assert results
    for result in results:
        assert "expects keypoints of layout 'coco' as (persons, frames, 17, 2), found shape" in str(result.error)


def test_a_pickle_of_2d_poses_for_a_3d_model(drawn: DrawnPoses, tmp_path: Path, model_3d: Path) -> None:
    (result,) = answer(pickled(tmp_path / "poses.pkl", annotation("a")), model=model_3d).results
    assert "expects keypoints of layout 'nturgb+d' as (persons, frames, 25, 3)" in str(result.error)


def test_a_hostile_pickle_is_refused_and_the_others_are_read(drawn: DrawnPoses, tmp_path: Path, model: Path) -> None:
    hostile = tmp_path / "hostile.pkl"
    hostile.write_bytes(pickle.dumps({"annotations": [annotation("a", note=Hostile(tmp_path / "trace"))]}))
    bad, good = answer(hostile, pickled(tmp_path / "poses.pkl", annotation("a")), model=model).results
    assert f"{hostile}: refused, nothing was run" in str(bad.error)
    assert good.error is None
    assert not (tmp_path / "trace").exists()


# --- several networks --------------------------------------------------------------------------------------------


@pytest.fixture
def streams(tmp_path: Path) -> list[Path]:
    return [
        classifier_file(tmp_path / f"{stream}.safetensors", stream=stream, seed=seed)
        for seed, stream in enumerate(("joint", "bone", "joint-motion", "bone-motion"))
    ]


def test_fused_scores_are_the_weighted_mean(drawn: DrawnPoses, films: dict[str, Film], streams: list[Path]) -> None:
    wave = films["wave"].path
    single = np.stack([scores_of(wave, model=path) for path in streams])
    assert np.ptp(single, axis=0).max() > 0.01, "the streams don't agree"
    np.testing.assert_allclose(scores_of(wave, model=streams), single.mean(axis=0), atol=1e-9)
    weights = np.array([2, 1, 2, 1])
    fused = scores_of(wave, model=streams, fusion_weights=[2, 1, 2, 1])
    np.testing.assert_allclose(fused, weights / 6 @ single, atol=1e-9)
    np.testing.assert_allclose(scores_of(wave, model=streams, fusion_weights=[20, 10, 20, 10]), fused, atol=1e-9)
    np.testing.assert_allclose(scores_of(wave, model=streams, fusion_weights=[0, 1, 0, 0]), single[1], atol=1e-9)


def test_every_network_of_a_fusion_is_described(drawn: DrawnPoses, films: dict[str, Film], streams: list[Path]) -> None:
    models = answer(films["wave"].path, model=streams, fusion_weights=[2, 1, 2, 1]).models
    assert [model["stream"] for model in models] == ["joint", "bone", "joint-motion", "bone-motion"]
    assert [model["fusion_weight"] for model in models] == [2, 1, 2, 1]
    assert all(len(model["sha256"]) == 64 for model in models)
    assert len({model["sha256"] for model in models}) == 4


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, 1, 1], "fusion weights: expected 2, one a model, found 3"),
        ([1], "fusion weights: expected 2, one a model, found 1"),
        ([1, -1], "fusion_weights: expected a number from 0 on, found -1"),
        ([0, 0], "fusion weights: expected one above 0, found none"),
        ([float("nan"), 1], "fusion_weights: expected a number from 0 on, found nan"),
        ([float("inf"), 1], "fusion_weights: expected a number from 0 on, found inf"),
    ],
)
def test_fusion_weights_that_make_no_sense(streams: list[Path], weights: list[float], message: str) -> None:
    with pytest.raises(SkelactError, match=message):
        Classifier(streams[:2], fusion_weights=weights)


def test_other_classes_are_not_fused(streams: list[Path], tmp_path: Path) -> None:
    other = classifier_file(tmp_path / "other.safetensors", ("wave", "walk"))
    reordered = classifier_file(tmp_path / "reordered.safetensors", CLASSES[::-1])
    with pytest.raises(SkelactError, match=r"cannot fuse .*joint.safetensors and .*their classes differ \(4 and 2\)"):
        Classifier([streams[0], other])
    with pytest.raises(SkelactError, match="their classes differ"):
        Classifier([streams[0], reordered])


# --- some of the classes -----------------------------------------------------------------------------------------


def test_only_the_classes_asked_for_are_scored(drawn: DrawnPoses, films: dict[str, Film], model: Path) -> None:
    wave = films["wave"].path
    every = scores_of(wave, model=model)
    predictions = answer(wave, model=model, classes=["stand", " Walk "])
    assert predictions.class_names == ("walk", "stand")
    (prediction,) = predictions.results[0].predictions
    np.testing.assert_allclose(prediction.scores, every[[1, 3]] / every[[1, 3]].sum(), atol=1e-9)
    assert prediction.class_name in ("walk", "stand")


def test_an_unknown_class_is_refused_with_the_names_there_are(model: Path) -> None:
    with pytest.raises(SkelactError, match="class 'fly' is none of the model's 4: wave, walk, shake hands, stand"):
        Classifier([model], classes=["wave", "fly"])


# --- poses that don't fit ----------------------------------------------------------------------------------------


def test_a_3d_model_refuses_video_before_a_pose_model_is_loaded(
    drawn: DrawnPoses, films: dict[str, Film], model_3d: Path
) -> None:
    (result,) = answer(films["wave"].path, model=model_3d).results
    assert "takes 3D skeletons (25 joints in metres), but a video gives 2D poses; take a 2D model" in str(result.error)
    assert drawn.loaded == []


def test_a_model_of_another_layout_refuses_video(drawn: DrawnPoses, films: dict[str, Film], tmp_path: Path) -> None:
    model = classifier_file(tmp_path / "openpose.safetensors", layout=OPENPOSE)
    (result,) = answer(films["wave"].path, model=model).results
    assert "takes layout 'openpose' (18 joints), but the pose model gives 17 COCO keypoints" in str(result.error)
    assert drawn.loaded == []


def test_a_video_cut_short_is_answered_with_a_warning(
    drawn: DrawnPoses, films: dict[str, Film], model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = tmp_path / "cut.mkv"
    with av.open(str(films["wave"].path)) as whole, av.open(str(source), "w") as copy:
        stream = copy.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)
    source.write_bytes(source.read_bytes()[: source.stat().st_size * 3 // 4])
    (result,) = answer(source, model=model).results
    (warning,) = result.warnings
    assert warning.startswith("the file is cut short: ")
    assert len(result.predictions) == 1
    assert caplog.messages.count(f"{source}: {warning}") == 1


def test_another_pose_model_than_in_training_is_told(drawn: DrawnPoses, films: dict[str, Film], tmp_path: Path) -> None:
    trained = {"pose_model": "HRNet", "img_shape": [1080, 1920]}
    model = classifier_file(tmp_path / "hrnet.safetensors", provenance=trained)
    (result,) = answer(films["wave"].path, model=model).results
    (warning,) = result.warnings
    assert "was trained on poses of HRNet, these are of drawn: expect lower accuracy" in warning
    same = classifier_file(tmp_path / "same.safetensors", provenance={**trained, "pose_model": "drawn"})
    assert answer(films["wave"].path, model=same).results[0].warnings == ()


def test_another_aspect_ratio_than_in_training_is_told(
    drawn: DrawnPoses, films: dict[str, Film], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained = {"pose_model": "drawn", "img_shape": [480, 640]}
    model = classifier_file(tmp_path / "vga.safetensors", provenance=trained)
    with caplog.at_level(logging.WARNING, "skelact"):
        (result,) = answer(films["wave"].path, model=model).results
    assert len(result.predictions) == 1
    (warning,) = result.warnings
    assert "was trained on pictures of 640 x 480, this one has 320 x 180: another aspect ratio" in warning
    assert warning in caplog.text


def test_a_pickle_is_not_compared_with_the_pose_model_of_training(tmp_path: Path) -> None:
    model = classifier_file(tmp_path / "m.safetensors", provenance={"pose_model": "HRNet", "img_shape": [480, 640]})
    assert answer(pickled(tmp_path / "poses.pkl", annotation("a")), model=model).results[0].warnings == ()


# --- overlays ----------------------------------------------------------------------------------------------------


def overlays(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in find_videos(folder)]


def test_the_overlay_of_one_video_goes_to_the_path_given(
    drawn: DrawnPoses, films: dict[str, Film], tmp_path: Path, model: Path
) -> None:
    out = tmp_path / "new" / "overlay.mp4"
    answer(films["wave"].path, model=model, out_video=out)
    info = probe_video(out)
    assert (info.img_shape, info.num_frames) == ((180, 320), 24)
    assert [path.name for path in out.parent.iterdir()] == ["overlay.mp4"]


def test_the_overlay_of_one_video_goes_into_the_folder_given(
    drawn: DrawnPoses, films: dict[str, Film], tmp_path: Path, model: Path
) -> None:
    answer(films["wave"].path, model=model, out_video=tmp_path)
    assert overlays(tmp_path) == ["wave.mp4"]
    answer(films["wave"].path, model=model, out_video=f"{tmp_path}/new/")
    assert overlays(tmp_path / "new") == ["wave.mp4"]


def test_the_overlays_of_a_folder_lie_as_in_it(drawn: DrawnPoses, folder: Path, tmp_path: Path, model: Path) -> None:
    answer(folder, model=model, out_video=tmp_path / "out")
    assert overlays(tmp_path / "out") == ["b.mp4", "deep/deeper/a.mp4"]


def test_overlays_of_the_same_name_do_not_replace_one_another(
    drawn: DrawnPoses, films: dict[str, Film], tmp_path: Path, model: Path
) -> None:
    copies = [tmp_path / name for name in ("x/a.mp4", "x/a.mkv", "y/a.mp4", "z/a.mp4")]
    for copy in copies:
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(films["wave"].path, copy)
    results = answer(*copies, model=model, out_video=tmp_path / "out").results
    assert [result.error for result in results] == [None] * 4
    assert len(overlays(tmp_path / "out")) == 4


@pytest.mark.parametrize("given", ["the video itself", "its folder"])
def test_an_overlay_never_replaces_a_source(
    drawn: DrawnPoses, films: dict[str, Film], tmp_path: Path, model: Path, given: str
) -> None:
    source = tmp_path / "a.mp4"
    shutil.copy(films["wave"].path, source)
    before = source.read_bytes()
    out = source if given == "the video itself" else tmp_path
    with pytest.raises(SkelactError, match=r"a.mp4: the output would replace its source; choose another path"):
        answer(source, model=model, out_video=out)
    assert source.read_bytes() == before
    assert drawn.loaded == [], "told before any work"


def test_each_sample_of_a_pickle_has_its_overlay(drawn: DrawnPoses, tmp_path: Path, model: Path) -> None:
    small = {"img_shape": (90, 160), "keypoint": annotation("a")["keypoint"] / 12}
    path = pickled(tmp_path / "poses.pkl", annotation("S1/a:1?", **small), annotation("b", **small))
    results = answer(path, model=model, out_video=tmp_path / "out").results
    assert [result.error for result in results] == [None, None]
    assert overlays(tmp_path / "out") == ["0000_S1_a_1_.mp4", "0001_b.mp4"], "names of files, on Windows too"
    answer(path, model=model, out_video=tmp_path / "own.mp4")
    assert overlays(tmp_path / "own") == ["0000_S1_a_1_.mp4", "0001_b.mp4"], "a folder is not called .mp4"
    with pytest.raises(SkelactError, match=r"own.avi: an overlay is an mp4; expected a name that ends in .mp4"):
        answer(path, model=model, out_video=tmp_path / "own.avi")


def test_an_overlay_that_cannot_be_written_is_told_before_the_work(
    drawn: DrawnPoses, films: dict[str, Film], tmp_path: Path, model: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SkelactError, match="a file stands where its folder should be; choose another folder"):
        answer(films["wave"].path, model=model, out_video=tmp_path / "file" / "a.mp4")
    assert drawn.loaded == []


# --- the real thing ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def yolo(request: pytest.FixtureRequest) -> PoseModel:
    pytest.importorskip("openvino", reason="the shared pose model is an OpenVINO export")
    shared: Path = request.getfixturevalue("shared")
    return PoseModel(shared / "weights" / "yolov8n-pose_int8_openvino_model", "cpu")


@pytest.mark.shared
@pytest.mark.parametrize(("name", "num_tracks", "num_frames"), [("wave", 1, 30), ("walk", 1, 30), ("handshake", 2, 60)])
def test_real_yolo_follows_people(yolo: PoseModel, name: str, num_tracks: int, num_frames: int) -> None:
    """Everybody has one track, with the joints where they were drawn, to a twentieth of the figure's height."""
    source = Path(__file__).parent / "assets" / f"{name}.mp4"
    sequence = estimate_poses(source, yolo, progress=False, max_frames=num_frames)
    assert sequence.num_frames == num_frames
    assert len(sequence.tracks) == num_tracks
    errors = []
    scene = drawn_people.SAMPLES[f"{name}.mp4"]
    for t, (_, keypoint, _) in enumerate(drawn_people.render(scene, num_frames, 30, (640, 360))):
        for track in sequence.tracks:
            if track.start_frame <= t < track.stop_frame:
                distance = np.linalg.norm(keypoint - track.keypoint[t - track.start_frame], axis=-1)
                errors.append(distance.mean(axis=-1).min() / (scene.people[0].height * 360))
    assert len(errors) > 0.9 * num_frames * num_tracks, "they are seen in nearly every frame"
    assert np.mean(errors) < 0.05


def test_a_video_of_one_frame_a_second_is_told_of(drawn: DrawnPoses, tmp_path: Path, model: Path) -> None:
    slow = film(tmp_path / "slow.mp4", drawn_people.scene_of("wave"), seconds=5, fps=1.0)
    drawn.films = [slow]
    (result,) = answer(slow.path, model=model).results
    assert any("expected 12.5 frames a second at least, found 1: people may be mixed up" in w for w in result.warnings)


def test_a_stride_that_leaves_too_few_poses_is_told_of(drawn: DrawnPoses, films: dict[str, Film], model: Path) -> None:
    (result,) = answer(films["wave"].path, model=model, stride=6).results
    assert any("at least, found 15 and a stride of 6: people may be mixed up" in w for w in result.warnings)
