"""A folder of videos becomes a dataset, whatever goes wrong on the way."""

from __future__ import annotations

import csv
import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import drawn_people
import numpy as np
import pytest
from stand_ins import FPS, SIZE, DrawnPoses, Film, film

from skelact import extract
from skelact.annotations import Annotation, AnnotationSet, load_annotations
from skelact.clips import tracks_keypoint
from skelact.converters import convert
from skelact.errors import SkelactError
from skelact.extract import extract_poses, load_sequence, save_sequence
from skelact.persons import main_persons
from skelact.pipeline import estimate_poses
from skelact.structures import PoseSequence, Track, VideoInfo

NUM_FRAMES = 24


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Film]:
    folder = tmp_path_factory.mktemp("films")
    scenes = {
        "wave": drawn_people.scene_of("wave", seed=1),
        "walk": drawn_people.scene_of("walk", seed=2),
        "shake": drawn_people.scene_of("shake_hands", seed=3),
        "nobody": drawn_people.nobody(),
    }
    return {name: film(folder / f"{name}.mp4", scene, NUM_FRAMES / FPS) for name, scene in scenes.items()}


class Estimator(DrawnPoses):
    """Knows the drawn joints; counts the frames that it sees."""

    device = "cpu"
    num_frames = 0

    def detect(self, frame: Any) -> Any:
        self.num_frames += 1
        return super().detect(frame)


@pytest.fixture
def drawn(films: dict[str, Film], monkeypatch: pytest.MonkeyPatch) -> Estimator:
    estimator = Estimator([film for name, film in films.items() if name != "nobody"])
    monkeypatch.setattr(extract, "choose_pose_model", lambda name: (str(name), None))
    monkeypatch.setattr(extract, "_estimator", lambda *settings: estimator)
    return estimator


@pytest.fixture
def folder(films: dict[str, Film], tmp_path: Path) -> Path:
    for name in ("wave", "walk", "shake"):
        for copy in range(2):
            path = tmp_path / "videos" / name / f"{copy}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(films[name].path, path)
    return tmp_path / "videos"


def rows_of(report: Path) -> dict[str, dict[str, str]]:
    with report.open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def same(a: AnnotationSet, b: AnnotationSet) -> bool:
    """Equal in all that a pickle holds."""
    return (
        a.split == b.split
        and a.class_names == b.class_names
        and a.provenance == b.provenance
        and len(a.annotations) == len(b.annotations)
        and all(
            x.frame_dir == y.frame_dir
            and x.label == y.label
            and x.img_shape == y.img_shape
            and np.array_equal(x.keypoint, y.keypoint)
            and np.array_equal(np.asarray(x.keypoint_score), np.asarray(y.keypoint_score))
            for x, y in zip(a.annotations, b.annotations, strict=True)
        )
    )


def test_the_pose_model_is_loaded_once(
    folder: Path, films: dict[str, Film], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []

    def load(pose_model: str, *settings: str | None) -> Estimator:
        loaded.append(pose_model)
        return Estimator([film for name, film in films.items() if name != "nobody"])

    monkeypatch.setattr(extract, "PoseModel", load)
    monkeypatch.setattr(extract, "_estimator", functools.cache(extract._estimator.__wrapped__))
    extract_poses(folder, tmp_path / "set.pkl", pose_model="some.pt", workers=1, progress=False)
    assert loaded == ["some.pt"]


def test_folders_of_classes_become_a_dataset(folder: Path, drawn: Estimator, tmp_path: Path) -> None:
    report = extract_poses(folder, tmp_path / "set.pkl", workers=1, progress=False)
    assert report.failed == ()
    dataset = load_annotations(tmp_path / "set.pkl")
    assert dataset.class_names == ("shake", "walk", "wave")
    assert dataset.layout == "coco"
    assert len(dataset.annotations) == report.num_samples == 6
    for annotation in dataset.annotations:
        persons = 2 if annotation.frame_dir.startswith("shake") else 1
        assert annotation.keypoint.shape == (persons, NUM_FRAMES, 17, 2)
        assert annotation.img_shape == SIZE[::-1]
        assert annotation.label == dataset.class_names.index(annotation.frame_dir.split("/")[0])
        assert annotation.extra["fps"] == pytest.approx(FPS)
    assert sorted(dataset.split["train"] + dataset.split["val"]) == sorted(a.frame_dir for a in dataset.annotations)
    assert dataset.provenance["pose_model"] == "drawn"
    assert rows_of(report.report)["wave/0"]["frames_with_poses"] == str(NUM_FRAMES)


def test_videos_without_labels_make_a_dataset_to_look_at_and_a_warning(
    folder: Path, drawn: Estimator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    report = extract_poses(folder / "wave", tmp_path / "set.pkl", workers=1, progress=False)
    assert report.num_samples == 2
    assert all(annotation.label is None for annotation in load_annotations(tmp_path / "set.pkl").annotations)
    assert "no sample has a label" in caplog.text


def test_persons_fill_the_slots_as_in_predict(folder: Path, drawn: Estimator, tmp_path: Path) -> None:
    extract_poses(folder, tmp_path / "set.pkl", workers=1, progress=False)
    (annotation,) = [a for a in load_annotations(tmp_path / "set.pkl").annotations if a.frame_dir == "shake/0"]
    sequence = estimate_poses(folder / "shake" / "0.mp4", drawn, progress=False)  # type: ignore[arg-type]
    persons = main_persons(sequence.tracks, sequence.info.img_shape, sequence.num_frames, 2)
    keypoint, _ = tracks_keypoint(persons, sequence.num_frames)
    np.testing.assert_allclose(annotation.keypoint, keypoint, atol=1e-4)


def test_a_table_with_times_makes_samples_of_the_parts_of_a_video(
    folder: Path, drawn: Estimator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As somebody has labelled long recordings: who does what from when to when."""
    (tmp_path / "times.csv").write_text(
        "start_s,stop_s,path,label\n0,0.5,wave/0.mp4,raise\n0.5,,wave/0.mp4,wave\n0.2,0.6,walk/0.mp4,walk\n9,10,walk/0.mp4,walk\n"
    )
    report = extract_poses(folder, tmp_path / "out.pkl", labels=tmp_path / "times.csv", progress=False)
    dataset = load_annotations(tmp_path / "out.pkl")
    of_name = {sample.frame_dir: sample for sample in dataset.annotations}
    labelled = {name: (dataset.class_names or ())[s.label] for name, s in of_name.items() if s.label is not None}
    assert labelled == {"wave/0_0-0.5": "raise", "wave/0_0.5-inf": "wave", "walk/0_0.2-0.6": "walk"}
    assert drawn.num_frames == 6 * NUM_FRAMES, "each video is posed once"
    frames = [round(time_s * FPS) for time_s in (0.5, 0.2, 0.6)]
    whole = extract_poses(folder, tmp_path / "whole.pkl", progress=False)
    assert whole.num_samples == 6
    uncut = {sample.frame_dir: sample.keypoint for sample in load_annotations(tmp_path / "whole.pkl").annotations}
    np.testing.assert_array_equal(of_name["wave/0_0-0.5"].keypoint, uncut["wave/0"][:, : frames[0]])
    np.testing.assert_array_equal(of_name["wave/0_0.5-inf"].keypoint, uncut["wave/0"][:, frames[0] :])
    np.testing.assert_array_equal(of_name["walk/0_0.2-0.6"].keypoint, uncut["walk/0"][:, frames[1] : frames[2]])
    assert "4 of 7 samples have no label" in caplog.text, "videos that the table doesn't name are there as a whole"
    ((_, reason),), rows = report.failed, rows_of(report.report)
    assert "none from 9 s on" in reason
    assert rows["walk/0_9-10"]["reason"] == reason


def test_in_a_part_of_a_video_those_count_who_act_in_it(
    folder: Path, drawn: Estimator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who fills most of the video goes out as another one falls, far away."""

    def person(track_id: int, frames: range, x: float, size: float) -> Track:
        body = np.random.default_rng(track_id).uniform(0, size, (17, 2)).astype(np.float32)
        keypoint = np.stack([body + np.array([x, 0.1 * size * (t % 2)]) for t in frames]).astype(np.float32)
        bbox = np.concatenate([keypoint.min(1), keypoint.max(1)], 1)
        sure = np.full((len(frames), 17), 0.9, np.float32)
        return Track(track_id, frames[0], np.array(frames) / 30, keypoint, sure, bbox, sure[:, 0])

    tracks = person(1, range(65), 0, 200), person(2, range(60, 120), 600, 60)
    whole = PoseSequence(VideoInfo("a.mp4", (240, 800), 30.0, 120), tracks, 120, "coco", np.arange(120) / 30)
    monkeypatch.setattr(extract, "load_sequence", lambda path: whole)
    (tmp_path / "times.csv").write_text("start_s,stop_s,path,label\n0,1,0.mp4,walk\n2,4,0.mp4,fall\n")
    extract_poses(folder / "wave", tmp_path / "out.pkl", labels=tmp_path / "times.csv", progress=False)
    of_name = {sample.frame_dir: sample.keypoint for sample in load_annotations(tmp_path / "out.pkl").annotations}
    assert of_name["0_0-1"][0, 0, 0, 0] < 200
    assert of_name["0_2-4"][0, 0, 0, 0] > 600


def test_one_bad_video_does_not_lose_the_rest(
    folder: Path, films: dict[str, Film], drawn: Estimator, tmp_path: Path
) -> None:
    whole = (folder / "wave" / "0.mp4").read_bytes()
    (folder / "wave" / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "wave" / "empty.mp4").write_bytes(b"")
    shutil.copy(films["nobody"].path, folder / "wave" / "nobody.mp4")
    (folder / "wave" / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    report = extract_poses(folder, tmp_path / "set.pkl", workers=1, progress=False)
    assert report.num_samples == 6
    assert sorted(Path(path).name for path, _ in report.failed) == ["cut.mp4", "empty.mp4", "gone.mp4", "nobody.mp4"]
    rows = rows_of(report.report)
    assert "cut short" in rows["wave/cut"]["reason"]
    assert "empty file" in rows["wave/empty"]["reason"]
    assert "gone.mp4: cannot be read (No such file" in rows["wave/gone"]["reason"]
    assert "nobody was found" in rows["wave/nobody"]["reason"]
    assert [row["status"] for row in rows.values()].count("ok") == 6


def test_what_is_wrong_with_a_video_stands_in_the_report(
    drawn: Estimator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also when its poses are kept from before."""
    path = film(tmp_path / "videos" / "wave" / "cut.mkv", drawn_people.scene_of("wave", seed=1), 24 / FPS).path
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    for _ in range(2):
        report = extract_poses(tmp_path / "videos", tmp_path / "set.pkl", progress=False)
        row = rows_of(report.report)["wave/cut"]
        assert (row["status"], report.failed) == ("ok", ())
        assert re.match(r"the file is cut short: \d+ frames, .* of 1.6 s decoded", row["reason"])
    assert len([message for message in caplog.messages if "cut short" in message]) == 1


@pytest.mark.parametrize("wrong", [{"stride": 0}, {"max_frames": 0}, {"num_person": 0}, {"out": "set.data"}])
def test_arguments_that_make_no_sense(folder: Path, tmp_path: Path, wrong: dict[str, Any]) -> None:
    out = tmp_path / wrong.pop("out", "set.pkl")
    with pytest.raises(
        SkelactError, match=r"expected a whole number from 1 on, found 0|expected a name that ends in \.pkl"
    ):
        extract_poses(folder, out, progress=False, **wrong)


def test_what_is_done_is_kept(folder: Path, drawn: Estimator, tmp_path: Path) -> None:
    """An interruption after three videos; the same call goes on, and the result is that of an unbroken run."""
    extract_poses(folder, tmp_path / "whole.pkl", workers=1, progress=False)
    drawn.num_frames = 0
    detect, limit = drawn.detect, 3 * NUM_FRAMES + 5

    def interrupted(frame: Any) -> Any:
        if drawn.num_frames == limit:
            raise KeyboardInterrupt
        return detect(frame)

    drawn.detect = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        extract_poses(folder, tmp_path / "set.pkl", workers=1, progress=False)
    assert not (tmp_path / "set.pkl").exists()
    drawn.detect, drawn.num_frames = detect, 0  # type: ignore[method-assign]
    extract_poses(folder, tmp_path / "set.pkl", workers=1, progress=False)
    assert drawn.num_frames == 3 * NUM_FRAMES, "three videos were left"
    assert same(load_annotations(tmp_path / "set.pkl"), load_annotations(tmp_path / "whole.pkl"))


def test_another_pose_model_starts_anew(folder: Path, drawn: Estimator, tmp_path: Path) -> None:
    extract_poses(folder, tmp_path / "set.pkl", workers=1, progress=False)
    drawn.num_frames = 0
    extract_poses(folder, tmp_path / "set.pkl", workers=1, progress=False)
    assert drawn.num_frames == 0, "all is there"
    drawn.provenance = {**drawn.provenance, "pose_model_sha256": "1" * 64}
    extract_poses(folder, tmp_path / "set.pkl", workers=1, progress=False)
    assert drawn.num_frames == 6 * NUM_FRAMES


def test_a_changed_video_is_posed_again(folder: Path, drawn: Estimator, tmp_path: Path) -> None:
    extract_poses(folder, tmp_path / "set.pkl", workers=1, progress=False)
    drawn.num_frames = 0
    shutil.copy(folder / "walk" / "0.mp4", folder / "wave" / "0.mp4")
    extract_poses(folder, tmp_path / "set.pkl", workers=1, progress=False)
    assert drawn.num_frames == NUM_FRAMES


def test_a_stride_keeps_the_length(folder: Path, drawn: Estimator, tmp_path: Path) -> None:
    extract_poses(folder, tmp_path / "all.pkl", workers=1, progress=False, clean=False)
    drawn.num_frames = 0
    extract_poses(folder, tmp_path / "third.pkl", workers=1, progress=False, clean=False, stride=3)
    assert drawn.num_frames == 6 * NUM_FRAMES / 3
    full, thinned = (load_annotations(tmp_path / f"{name}.pkl").annotations for name in ("all", "third"))
    for a, b in zip(full, thinned, strict=True):
        assert a.keypoint.shape == b.keypoint.shape
        assert np.array_equal(a.keypoint[:, ::3], b.keypoint[:, ::3])
        height = np.ptp(a.keypoint[0, 0, :, 1])
        assert np.linalg.norm(a.keypoint - b.keypoint, axis=-1)[:, :-2].mean() < 0.05 * height


def test_poses_are_cleaned_unless_told_otherwise_and_the_dataset_tells(
    folder: Path, drawn: Estimator, tmp_path: Path
) -> None:
    extract_poses(folder, tmp_path / "clean.pkl", workers=1, progress=False)
    extract_poses(folder, tmp_path / "raw.pkl", workers=1, progress=False, clean=False)
    clean, raw = (load_annotations(tmp_path / f"{name}.pkl") for name in ("clean", "raw"))
    assert clean.provenance["cleaning"]["cutoff_hz"] == 6.0
    assert raw.provenance["cleaning"] is None
    assert not np.array_equal(clean.annotations[0].keypoint, raw.annotations[0].keypoint)


def test_options_that_shorten(folder: Path, drawn: Estimator, tmp_path: Path) -> None:
    (tmp_path / "without.txt").write_text("wave/0\nwalk/1\n")
    extract_poses(
        folder,
        tmp_path / "a.pkl",
        workers=1,
        progress=False,
        max_frames=10,
        num_person=1,
        exclude=tmp_path / "without.txt",
    )
    annotations = load_annotations(tmp_path / "a.pkl").annotations
    assert sorted(a.frame_dir for a in annotations) == ["shake/0", "shake/1", "walk/0", "wave/1"]
    assert all(a.keypoint.shape == (1, 10, 17, 2) for a in annotations)


def test_half_precision_warns_of_its_rounding(
    folder: Path, drawn: Estimator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    extract_poses(folder, tmp_path / "a.pkl", workers=1, progress=False, half=True)
    assert "rounds" not in caplog.text, "the videos are small"
    large = Annotation("large", np.zeros((1, 1, 17, 2), np.float32), img_shape=(1080, 1920))
    extract._warn_of_half([large], half=True)
    assert "1 px above 1024" in caplog.text


def test_nothing_usable_writes_no_dataset(films: dict[str, Film], drawn: Estimator, tmp_path: Path) -> None:
    shutil.copy(films["nobody"].path, tmp_path / "nobody.mp4")
    report = extract_poses(tmp_path / "nobody.mp4", tmp_path / "set.pkl", workers=1, progress=False)
    assert report.path is None
    assert report.num_samples == 0
    assert not (tmp_path / "set.pkl").exists()


def test_kept_poses_come_back_as_they_were(films: dict[str, Film], drawn: Estimator, tmp_path: Path) -> None:
    sequence = estimate_poses(films["shake"].path, drawn, progress=False)  # type: ignore[arg-type]
    save_sequence(sequence, tmp_path / "a.npz")
    back = load_sequence(tmp_path / "a.npz")
    assert (back.info, back.num_frames, back.layout) == (sequence.info, sequence.num_frames, sequence.layout)
    for a, b in zip(sequence.tracks, back.tracks, strict=True):
        assert (a.track_id, a.start_frame) == (b.track_id, b.start_frame)
        assert np.array_equal(a.keypoint, b.keypoint)
        assert np.array_equal(a.time_s, b.time_s)


def test_a_wrong_output_is_found_before_the_work(folder: Path, drawn: Estimator, tmp_path: Path) -> None:
    with pytest.raises(SkelactError, match="found a folder"):
        extract_poses(folder, tmp_path, workers=1, progress=False)
    assert drawn.num_frames == 0


# --- the real thing ----------------------------------------------------------------------------------------------


@pytest.mark.shared
def test_killed_half_way_and_run_again_it_equals_an_unbroken_run(shared: Path, tmp_path: Path) -> None:
    """Real clips, real YOLO, two workers, ``kill -9`` on all of them."""
    pytest.importorskip("openvino", reason="the shared pose model is an OpenVINO export")
    for action in ("wave1", "run"):
        for person in ("ido", "daria", "lyova"):
            source = shared / "media" / "clips" / "weizmann" / action / f"{person}_{action}.avi"
            target = tmp_path / "clips" / action / source.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    (tmp_path / "clips" / "run" / "rubbish.avi").write_bytes(b"rubbish" * 1000)
    model = str(shared / "weights" / "yolov8n-pose_int8_openvino_model")

    def command(out: str) -> list[str]:
        options = ["--pose-model", model, "--workers", "2", "--group-by", r"/([a-z]+)"]
        return [sys.executable, "-m", "skelact", "extract-poses", str(tmp_path / "clips"), "--out", out, *options]

    broken, whole = tmp_path / "broken.pkl", tmp_path / "whole.pkl"
    with subprocess.Popen(command(str(broken)), stderr=subprocess.DEVNULL, start_new_session=True) as run:
        work = tmp_path / "broken.pkl.work"
        deadline = time.monotonic() + 240
        while len(list(work.glob("*.npz"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        os.killpg(run.pid, signal.SIGKILL)
    assert not broken.exists()
    assert 2 <= len(list(work.glob("*.npz"))) < 6, "it was killed half-way"
    for out in (broken, whole):
        result = subprocess.run(command(str(out)), capture_output=True, text=True, timeout=600)
        assert result.returncode == 1
        assert "1 of 7 failed" in result.stderr
        rows = rows_of(out.with_suffix(".report.csv"))
        assert re.search("expected a .*video", rows["run/rubbish"]["reason"])
    assert same(load_annotations(broken), load_annotations(whole))
    assert len(load_annotations(whole).annotations) == 6


def test_a_list_of_what_to_leave_out_means_the_same_for_videos_and_for_samples(
    folder: Path, drawn: Estimator, tmp_path: Path
) -> None:
    extract_poses(folder, tmp_path / "all.pkl", workers=0, progress=False)
    listed = tmp_path / "list.txt"
    names = ["wave/0.mp4", "walk/1", "wave/1.mp4", "shake/0", "shake/1"]
    listed.write_text("\n".join(names))
    for exclude in (listed, names):
        extract_poses(folder, tmp_path / "some.pkl", workers=0, progress=False, exclude=exclude)
        converted = convert(tmp_path / "all.pkl", exclude=exclude, progress=False).dataset.annotations
        assert [a.frame_dir for a in load_annotations(tmp_path / "some.pkl").annotations] == ["walk/0"]
        assert [a.frame_dir for a in converted] == ["walk/0"]
