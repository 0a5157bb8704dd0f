"""A tiny dataset is learnt from end to end; a broken run goes on as if nothing had been."""

from __future__ import annotations

import csv
import errno
import json
import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from stand_ins import classifier_file

import skelact
from skelact import training
from skelact.annotations import Annotation, AnnotationSet, save_annotations
from skelact.checkpoint import load_checkpoint
from skelact.cli import main
from skelact.clips import STREAMS, ClipSettings
from skelact.dataset import ClipDataset
from skelact.errors import SkelactError
from skelact.evaluate import score_samples
from skelact.files import sha256_of
from skelact.recipes import RECIPES
from skelact.run_folder import RunFolder
from skelact.skeleton import COCO, NTU, Layout
from skelact.training import train
from skelact.weights import shipped_path, streams

TINY = replace(
    RECIPES["published"], epochs=3, repeat=2, batch_size=4, clip_len=16, num_person=1, lr=0.2, auto_scale_lr=True
)


@pytest.fixture(autouse=True)
def small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published shape takes minutes on a busy machine."""
    small = {"channels": (12, 24), "strides": (1, 2)}
    original = training.ModelSettings
    monkeypatch.setattr(training, "ModelSettings", lambda *arguments: replace(original(*arguments), **small))


def dataset(num_samples: int = 16, joints: int = 17, dims: int = 2, layout: str = "coco") -> AnnotationSet:
    """Two classes that anybody can tell apart: those who move left and those who move right."""
    rng = np.random.default_rng(0)
    skeleton = rng.uniform(100, 300, (1, 1, joints, dims))
    annotations = []
    for k in range(num_samples):
        T = int(rng.integers(20, 40))
        keypoint = skeleton + rng.normal(0, 0.3, (1, T, joints, dims))
        keypoint[..., 0] += (1 if k % 2 else -1) * np.arange(T)[None, :, None] * 2
        score = np.full((1, T, joints), 0.9, np.float32) if dims == 2 else None
        sample = Annotation(f"s{k}", keypoint.astype(np.float32), score, (400, 400), k % 2)
        annotations.append(sample)
    names = [a.frame_dir for a in annotations]
    cut = num_samples * 3 // 4
    return AnnotationSet(
        annotations, {"train": tuple(names[:cut]), "val": tuple(names[cut:])}, ("left", "right"), layout
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    save_annotations(dataset(), tmp_path / "set.pkl")
    return tmp_path / "set.pkl"


def weights_of(path: Path) -> dict[str, Any]:
    return {name: tensor.numpy() for name, tensor in load_checkpoint(path).state_dict.items()}


def equal(a: Path, b: Path) -> bool:
    first, second = weights_of(a), weights_of(b)
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


def test_a_plain_difference_is_learnt(data: Path, tmp_path: Path) -> None:
    settings = replace(TINY, epochs=12, stream="joint-motion")
    report = train(data, tmp_path / "run", settings, progress=False)
    assert report.val_top1 == 1.0
    checkpoint = load_checkpoint(report.best)
    assert checkpoint.class_names == ("left", "right")
    assert checkpoint.clips.stream == "joint-motion"
    assert checkpoint.clips.layout.name == "coco"
    assert checkpoint.metrics["val_top1"] == 1.0
    assert checkpoint.provenance["train"]["seed"] == 0
    with (tmp_path / "run" / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == list(range(12))
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    assert float(rows[-1]["lr"]) < 0.05 * 0.2 * 4 / 128, "the learning rate falls to 0"


def test_three_dimensions_are_fitted(tmp_path: Path) -> None:
    save_annotations(dataset(joints=25, dims=3, layout="nturgb+d"), tmp_path / "set.pkl")
    train(tmp_path / "set.pkl", tmp_path / "run", replace(TINY, epochs=12, stream="joint-motion"), progress=False)
    with (tmp_path / "run" / "log.csv").open(newline="") as file:
        assert max(float(row["train_top1"]) for row in csv.DictReader(file)) == 1.0
    assert load_checkpoint(tmp_path / "run" / "last.safetensors").clips.dims == 3


def test_three_dimensions_of_other_joints_are_not_turned_as_those_of_kinect(tmp_path: Path) -> None:
    save_annotations(dataset(dims=3), tmp_path / "set.pkl")
    usual = replace(TINY, normaliser=None, epochs=1)
    train(tmp_path / "set.pkl", tmp_path / "run", usual, progress=False)
    assert load_checkpoint(tmp_path / "run" / "last.safetensors").clips.normaliser == "body"
    with pytest.raises(SkelactError, match=r"by joints of 'nturgb\+d', the dataset has 'coco'; take body"):
        train(tmp_path / "set.pkl", tmp_path / "other", replace(usual, normaliser="published"), progress=False)


def test_of_epochs_that_are_as_often_right_the_surer_one_is_kept(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sure = iter([0.6, 0.9, 0.7])

    def scores(run: Any, network: Any, part: Any) -> Any:
        p = next(sure, 0.9)
        return np.array([[p, 1 - p] if label == 0 else [1 - p, p] for label in run.job.labels(part)])

    monkeypatch.setattr("skelact.training._Run._scores", scores)
    report = train(data, tmp_path / "run", TINY, progress=False)
    assert load_checkpoint(report.best).metrics["epoch"] == 1


def test_the_fusion_that_training_tells_is_that_of_its_checkpoints(data: Path, tmp_path: Path) -> None:
    whole = dataset(40)
    noisy = replace(whole, annotations=[replace(a, label=(k * 7 % 5) % 2) for k, a in enumerate(whole.annotations)])
    save_annotations(noisy, tmp_path / "noisy.pkl")
    reports, top1 = training.train_streams(tmp_path / "noisy.pkl", tmp_path / "run", TINY, progress=False)
    options: dict[str, Any] = {"split": "val", "clips": 1, "progress": False}
    alone = skelact.test(tmp_path / "noisy.pkl", reports["joint"].best, **options)
    np.testing.assert_allclose(reports["joint"].val_scores, alone.scores, atol=1e-5)
    fused = skelact.test(tmp_path / "noisy.pkl", [reports[stream].best for stream in ("joint", "bone")], **options)
    assert fused.metrics.top1 == pytest.approx(top1["two-stream"])


def test_the_same_seed_gives_the_same_weights(data: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        train(data, tmp_path / name, TINY, progress=False)
    train(data, tmp_path / "c", replace(TINY, seed=1), progress=False)
    assert equal(tmp_path / "a" / "last.safetensors", tmp_path / "b" / "last.safetensors")
    assert not equal(tmp_path / "a" / "last.safetensors", tmp_path / "c" / "last.safetensors")


def test_a_resumed_run_ends_as_an_unbroken_one(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(data, tmp_path / "whole", TINY, progress=False)
    save_state = RunFolder.save_state

    def power_cut(folder: RunFolder, tensors: Any, progress: dict[str, Any]) -> None:
        save_state(folder, tensors, progress)
        if progress["epoch"] == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "save_state", power_cut)
    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path / "broken", TINY, progress=False)
    monkeypatch.setattr(RunFolder, "save_state", save_state)
    train(data, tmp_path / "broken", TINY, resume=True, progress=False)
    for name in ("best", "last"):
        assert equal(tmp_path / "whole" / f"{name}.safetensors", tmp_path / "broken" / f"{name}.safetensors")
    logs = [(tmp_path / name / "log.csv").read_text() for name in ("whole", "broken")]
    assert logs[0] == logs[1]


def test_a_script_without_a_guard_may_have_processes_that_prepare_clips(data: Path, tmp_path: Path) -> None:
    """Which are spawned on Windows and macOS: they must not run the script again."""
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing, skelact\n"
        "multiprocessing.set_start_method('spawn')\n"
        "settings = skelact.TrainSettings(epochs=1, width=8, repeat=1)\n"
        f"skelact.train({str(data)!r}, {str(tmp_path / 'run')!r}, settings, workers=1, device='cpu', progress=False)\n",
        encoding="utf-8",
    )
    subprocess.run([sys.executable, script], check=True, timeout=300)
    assert (tmp_path / "run" / "best.safetensors").is_file()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what is mapped")
def test_no_file_is_replaced_while_it_is_mapped(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows refuses it: neither the end of a run nor the next epoch of a resumed one may do so."""
    replace_file, save_state = os.replace, RunFolder.save_state

    def as_on_windows(source: Path, target: Path) -> None:
        assert str(target) not in Path("/proc/self/maps").read_text(encoding="utf-8")
        replace_file(source, target)

    def power_cut(folder: RunFolder, tensors: Any, progress: dict[str, Any]) -> None:
        save_state(folder, tensors, progress)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", as_on_windows)
    with monkeypatch.context() as broken:
        broken.setattr(RunFolder, "save_state", power_cut)
        with pytest.raises(KeyboardInterrupt):
            train(data, tmp_path / "run", TINY, device="cpu", progress=False)
    assert train(data, tmp_path / "run", TINY, device="cpu", resume=True, progress=False).val_top1 is not None


def test_a_run_in_fp16_is_resumed_with_its_scale(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on GPUs without bfloat16; a scale that starts anew would overflow and leave steps out."""
    monkeypatch.setattr(training, "training_half", lambda device: torch.float16)
    scaler = partial(torch.amp.GradScaler, init_scale=4.0, growth_interval=2)
    monkeypatch.setattr(torch.amp, "GradScaler", scaler)
    scales = []
    save_state = RunFolder.save_state

    def power_cut(folder: RunFolder, tensors: Any, progress: dict[str, Any]) -> None:
        save_state(folder, tensors, progress)
        scales.append(progress["scaler"]["scale"])
        if len(scales) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "save_state", power_cut)
    settings = replace(TINY, amp=True, epochs=2)
    train(data, tmp_path / "whole", settings, progress=False)
    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path / "broken", settings, progress=False)
    train(data, tmp_path / "broken", settings, resume=True, progress=False)
    assert equal(tmp_path / "whole" / "last.safetensors", tmp_path / "broken" / "last.safetensors")
    assert 4 < scales[0] < scales[1]
    assert scales[2:] == scales[:2]


def test_runs_are_not_mixed(data: Path, tmp_path: Path) -> None:
    train(data, tmp_path / "run", replace(TINY, epochs=1), progress=False)
    with pytest.raises(SkelactError, match="holds a run already; go on with --resume"):
        train(data, tmp_path / "run", replace(TINY, epochs=1), progress=False)
    with pytest.raises(SkelactError, match=r"holds a run with other settings \(epochs\)"):
        train(data, tmp_path / "run", replace(TINY, epochs=2), resume=True, progress=False)


def test_checkpoints_that_it_cannot_go_on_from_are_not_overwritten(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(data, run, replace(TINY, epochs=1), progress=False)
    before = (run / "best.safetensors").read_bytes()
    (run / "state.safetensors").unlink()
    with pytest.raises(SkelactError, match=r"expected state.safetensors to go on from, found none; start anew in anot"):
        train(data, run, replace(TINY, epochs=1), resume=True, progress=False)
    (run / "config.json").unlink()
    with pytest.raises(SkelactError, match="holds a run already; go on with --resume, or choose another --out"):
        train(data, run, replace(TINY, epochs=1), progress=False)
    assert (run / "best.safetensors").read_bytes() == before


@pytest.mark.parametrize(("stream", "best"), [("joint", "best.safetensors"), ("all", "bone/best.safetensors")])
def test_without_out_a_run_goes_to_the_datasets_name(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: str, best: str
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--epochs", "1", "--repeat", "1", "--batch-size", "8", "--clip-len", "16", "--quiet"]
    command = ["train", str(data), "--stream", stream, *options]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "runs" / data.stem / best).is_file()
    again = CliRunner().invoke(main, command)
    assert again.exit_code == 1
    assert "holds a run already; go on with --resume, or choose another --out" in again.stderr


def test_a_run_of_an_older_version_goes_on(data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It kept no setting that came later, which was as it is by default, and no hash of what it started from."""
    train(data, tmp_path / "start", replace(TINY, epochs=1), progress=False)
    run = {"data": data, "out": tmp_path / "run", "init": tmp_path / "start" / "best.safetensors", "progress": False}
    train(settings=replace(TINY, epochs=1), **run)
    file = tmp_path / "run" / "config.json"

    def forget(*names: str) -> None:
        config = json.loads(file.read_text())
        file.write_text(json.dumps({key: value for key, value in config.items() if key not in names}))

    forget("init_sha256", "skip_empty")
    train(settings=replace(TINY, epochs=1), resume=True, **run)
    assert "is of an older skelact, which did not keep skip_empty, init_sha256" in caplog.text
    forget("skip_empty", "data_sha256")
    with pytest.raises(SkelactError, match=r"holds a run with other settings \(skip_empty, data_sha256\)"):
        train(settings=replace(TINY, epochs=1, skip_empty=True), resume=True, **run)


def test_without_validation_the_last_epoch_is_the_best(tmp_path: Path) -> None:
    save_annotations(replace(dataset(), split={}), tmp_path / "set.pkl")
    report = train(tmp_path / "set.pkl", tmp_path / "run", TINY, progress=False)
    assert report.val_top1 is None
    assert equal(report.best, report.last)


def test_a_loss_that_explodes_stops_with_a_message(data: Path, tmp_path: Path) -> None:
    with pytest.raises(SkelactError, match="take a smaller --lr"):
        train(data, tmp_path / "run", replace(TINY, lr=1e30, epochs=5), progress=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": {"train": ("missing",)}}, "that no sample has"),
        (
            {"class_names": ("left",)},
            r"sample s1 of split train: expected a label in 0\.\.0, .*, found 1",
        ),
        ({"split": {"train": ()}}, "expected samples with labels, found none; --labels of convert gives them"),
    ],
)
def test_data_that_do_not_train(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    save_annotations(replace(dataset(), **change), tmp_path / "set.pkl")
    with pytest.raises(SkelactError, match=message):
        train(tmp_path / "set.pkl", tmp_path / "run", TINY, progress=False)


def test_a_folder_of_videos_is_no_dataset_yet(tmp_path: Path) -> None:
    with pytest.raises(SkelactError, match="expected a pickle, found a folder; skelact extract-poses makes a"):
        train(tmp_path, tmp_path / "run", TINY, progress=False)


def test_a_sample_of_another_layout_is_named(tmp_path: Path) -> None:
    odd = Annotation("odd", np.ones((1, 5, 14, 2), np.float32), np.ones((1, 5, 14), np.float32), (100, 100), 0)
    whole = dataset()
    save_annotations(replace(whole, annotations=[*whole.annotations, odd], split={}), tmp_path / "set.pkl")
    with pytest.raises(SkelactError, match="sample odd"):
        train(tmp_path / "set.pkl", tmp_path / "run", TINY, progress=False)


def test_from_the_command_line_to_a_prediction(data: Path, tmp_path: Path) -> None:
    options = [
        "--recipe",
        "published",
        "--auto-scale-lr",
        "--epochs",
        "12",
        "--repeat",
        "2",
        "--batch-size",
        "4",
        "--clip-len",
        "16",
        "--lr",
        "0.2",
        "--quiet",
    ]
    command = ["train", str(data), "--out", str(tmp_path / "run"), "--stream", "joint-motion", *options]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.stderr
    assert "top-1" in result.stderr
    predictions = skelact.predict(data, tmp_path / "run" / "best.safetensors", clips=1, progress=False)
    right = [
        answer.predictions[0].class_name == dataset().class_names[answer.sequence.label]  # type: ignore[index,union-attr]
        for answer in predictions.results
    ]
    assert np.mean(right) > 0.8
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["epochs"] == 12


# --- the recipes -------------------------------------------------------------------------------------------------

QUICK = replace(
    RECIPES["default"], epochs=2, repeat=1, batch_size=8, clip_len=16, num_person=1, lr=1.0, warmup_epochs=0.5, ema=0.5
)


def rising(num_samples: int = 24) -> AnnotationSet:
    """As ``dataset``, but some rise and some fall, which a mirror leaves as it is."""
    whole = dataset(num_samples)
    turned = [replace(sample, keypoint=sample.keypoint[..., ::-1].copy()) for sample in whole.annotations]
    return replace(whole, annotations=turned, class_names=("fall", "rise"))


def test_the_published_recipe_is_the_published_one() -> None:
    recipe = RECIPES["published"]
    assert (recipe.lr, recipe.batch_size, recipe.auto_scale_lr) == (0.1, 128, False)
    assert (recipe.momentum, recipe.weight_decay, recipe.epochs, recipe.repeat) == (0.9, 5e-4, 16, 5)
    assert (recipe.clip_len, recipe.num_person, recipe.normaliser, recipe.sampling) == (100, 2, "published", "uniform")
    assert not any((recipe.warmup_epochs, recipe.label_smoothing, recipe.ema, recipe.augmentations))


def test_the_default_recipe_learns_with_all_its_augmentations(tmp_path: Path) -> None:
    save_annotations(rising(), tmp_path / "set.pkl")
    settings = replace(QUICK, epochs=10, repeat=4, stream="joint-motion")
    report = train(tmp_path / "set.pkl", tmp_path / "run", settings, progress=False)
    assert report.val_top1 == 1.0
    checkpoint = load_checkpoint(report.best)
    assert (checkpoint.clips.normaliser, checkpoint.clips.sampling) == ("body", "interpolate")
    calibration = checkpoint.metrics["calibration"]
    assert calibration["split"] == "val"
    assert calibration["num_samples"] == 6
    for name in ("config.json", "log.csv", "curves.png", "confusion.png"):
        assert (tmp_path / "run" / name).stat().st_size > 0


def test_the_settings_suit_the_data(tmp_path: Path) -> None:
    save_annotations(dataset(), tmp_path / "set.pkl")
    settings = replace(QUICK, epochs=1, clip_len=None, num_person=None)
    clips = load_checkpoint(train(tmp_path / "set.pkl", tmp_path / "run", settings, progress=False).last).clips
    assert clips.clip_len == 32, "the shortest that is taken by itself"
    assert clips.num_person == 1


def test_a_checkpoint_tells_how_long_its_clips_were(tmp_path: Path) -> None:
    """In seconds, the median of what was trained on; timelines take windows of that length."""
    whole = dataset()
    for sample in whole.annotations[::2]:
        sample.extra["fps"] = 15
    save_annotations(whole, tmp_path / "set.pkl")
    report = train(tmp_path / "set.pkl", tmp_path / "run", replace(QUICK, epochs=1), progress=False)
    names = whole.split["train"]
    seconds = [a.keypoint.shape[1] / a.extra.get("fps", 30) for a in whole.annotations if a.frame_dir in names]
    assert load_checkpoint(report.last).provenance["clip_s"] == pytest.approx(np.median(seconds), abs=0.001)


@pytest.mark.parametrize("change", [{}, {"dropout": 0.5, "mixup": 0.4}])
def test_a_run_with_an_average_is_resumed_to_the_bit(
    data: Path, tmp_path: Path, monkeypatch: Any, change: dict[str, Any]
) -> None:
    settings = replace(QUICK, **change)
    train(data, tmp_path / "whole", settings, workers=1, progress=False)
    save_state = RunFolder.save_state

    def power_cut(folder: RunFolder, *state: Any) -> None:
        save_state(folder, *state)
        raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "save_state", power_cut)
    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path / "broken", settings, progress=False)
    monkeypatch.setattr(RunFolder, "save_state", save_state)
    train(data, tmp_path / "broken", settings, resume=True, workers=2, progress=False)
    assert equal(tmp_path / "whole" / "last.safetensors", tmp_path / "broken" / "last.safetensors")


def test_the_average_is_one_of_all_weights_and_statistics() -> None:
    network = torch.nn.BatchNorm1d(3)
    average = training.Average(network, 0.25)
    wanted = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for step in range(1, 5):
        network(torch.randn(8, 3))
        with torch.no_grad():
            network.weight.add_(torch.randn(3))
        average.update()
        decay = min(0.25, (1 + step) / (10 + step))
        for name, now in network.state_dict().items():
            wanted[name] = torch.lerp(wanted[name], now, 1 - decay) if now.is_floating_point() else now
    for name, found in average.network.state_dict().items():
        assert torch.equal(found, wanted[name]), name


def test_processes_prepare_clips_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "available_cores", lambda: 16)
    assert [training.default_workers(device) for device in ("cpu", "mps", "cuda:1")] == [0, 0, 4]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert training.default_workers("cuda:1") == 3
    for cores in (4, 2):
        monkeypatch.setattr(training, "available_cores", lambda cores=cores: cores)
        assert training.default_workers("cuda:1") == 0


def test_products_are_as_fast_on_a_gpu_as_convolutions() -> None:
    for device, within in (("cpu", "highest"), ("cuda:1", "high")):
        with training._tensor_float(device):
            assert torch.get_float32_matmul_precision() == within
        assert torch.get_float32_matmul_precision() == "highest"
    assert torch.backends.cudnn.allow_tf32, "that is so by default"


def test_fine_tuning_starts_from_a_checkpoint(data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = train(data, tmp_path / "first", replace(QUICK, normaliser="published"), progress=False)
    renamed = replace(dataset(), class_names=("west", "east"))
    save_annotations(renamed, tmp_path / "renamed.pkl")
    settings = replace(QUICK, freeze=True, clip_len=None, ema=0)
    tuned = train(tmp_path / "renamed.pkl", tmp_path / "tuned", settings, init=first.best, progress=False)
    assert "the head is replaced: 2 classes before, 2 now" in caplog.text
    before, after = weights_of(first.best), weights_of(tuned.last)
    for name in before:
        assert np.array_equal(before[name], after[name]) == (not name.startswith("cls_head")), name
    clips = load_checkpoint(tuned.last).clips
    assert (clips.clip_len, clips.normaliser) == (16, "published"), "as in the checkpoint"


@pytest.mark.parametrize(
    ("change", "message"),
    [({"stream": "bone"}, "expected a checkpoint for stream 'bone', found 'joint'"), ({}, "takes layout 'coco' in 2D")],
)
def test_a_checkpoint_that_does_not_fit_is_no_start(
    data: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    first = train(data, tmp_path / "first", replace(QUICK, epochs=1), progress=False)
    other = dataset(joints=18, layout="openpose") if not change else dataset()
    save_annotations(other, tmp_path / "other.pkl")
    with pytest.raises(SkelactError, match=message):
        train(tmp_path / "other.pkl", tmp_path / "run", replace(QUICK, **change), init=first.best, progress=False)


def test_four_streams_start_from_four_streams(data: Path, tmp_path: Path) -> None:
    once = replace(QUICK, epochs=1)
    first, _ = training.train_streams(data, tmp_path / "first", once, progress=False)
    still = replace(once, lr=1e-9, freeze=True, ema=0)
    again, _ = training.train_streams(data, tmp_path / "again", still, init=tmp_path / "first", progress=False)
    for stream in STREAMS:
        before, after = (weights_of(reports[stream].best) for reports in (first, again))
        for name in before:
            np.testing.assert_allclose(after[name], before[name], atol=1e-6, err_msg=f"{stream} {name}")
    told = json.loads((tmp_path / "again" / "streams.json").read_text())
    assert (told["schema_version"], told["seed"], told["command"]) == (1, 0, [])
    told = told["top1"]
    assert set(told) == {*STREAMS, "two-stream", "four-stream"}
    fused = replace(once, stream="bone", clip_len=None)  # the shipped model is a fusion of two
    tuned = train(data, tmp_path / "fused", fused, init="skelact-daily", progress=False)
    assert load_checkpoint(tuned.best).clips.stream == "bone"
    start = shipped_path("skelact-daily-bone")
    config = json.loads((tmp_path / "fused" / "config.json").read_text())
    assert (config["init"], config["init_sha256"]) == ("skelact-daily", sha256_of(start))
    with pytest.raises(SkelactError, match="expected a checkpoint for stream 'joint-motion', found 'joint' and 'bone'"):
        training.train_streams(data, tmp_path / "more", once, init="skelact-daily", progress=False)


def test_a_head_for_the_same_classes_stays(data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = dataset()
    save_annotations(replace(whole, class_names=None), tmp_path / "bare.pkl")
    swapped = [replace(sample, label=1 - (sample.label or 0)) for sample in whole.annotations]
    save_annotations(replace(whole, annotations=swapped, class_names=("right", "left")), tmp_path / "swapped.pkl")
    first = train(data, tmp_path / "first", QUICK, progress=False)
    bare = train(tmp_path / "bare.pkl", tmp_path / "bare", QUICK, progress=False)
    still = replace(QUICK, epochs=1, lr=1e-9, freeze=True)
    for name, start in (("bare.pkl", first), ("swapped.pkl", first), ("set.pkl", bare)):
        again = train(tmp_path / name, tmp_path / f"{name}-again", still, init=start.best, progress=False)
        before, after = (weights_of(report.best)["cls_head.fc.weight"] for report in (start, again))
        is_swapped = name == "swapped.pkl"
        assert load_checkpoint(again.best).class_names == (("right", "left") if is_swapped else ("left", "right"))
        np.testing.assert_allclose(after, before[::-1] if is_swapped else before, atol=1e-6, err_msg=name)
    assert "the head is replaced" not in caplog.text


def test_a_foreign_checkpoint_has_the_layout_that_is_given(tmp_path: Path) -> None:
    save_annotations(dataset(joints=12, layout="mine"), tmp_path / "set.pkl")
    layout = Layout("mine", tuple(map(str, range(12))), tuple((k, k - 1) for k in range(1, 12)), 0)
    first = train(tmp_path / "set.pkl", tmp_path / "first", replace(QUICK, epochs=1), layout=layout, progress=False)
    foreign = {"state_dict": load_checkpoint(first.best).state_dict}
    torch.save(foreign, tmp_path / "joint.pth")
    with pytest.raises(SkelactError, match="expected a checkpoint for stream 'bone', found 'joint'"):
        train(
            *(tmp_path / "set.pkl", tmp_path / "bone", replace(QUICK, stream="bone")),
            **{"layout": layout, "init": tmp_path / "joint.pth"},
        )
    settings = replace(QUICK, epochs=1)
    again = train(
        tmp_path / "set.pkl", tmp_path / "again", settings, layout=layout, init=tmp_path / "joint.pth", progress=False
    )
    assert load_checkpoint(again.best).clips.layout == layout


def test_classes_are_those_of_both_splits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = dataset()
    *others, last = whole.annotations
    three = replace(whole, annotations=[*others, replace(last, label=2)], class_names=None)
    save_annotations(three, tmp_path / "set.pkl")
    report = train(tmp_path / "set.pkl", tmp_path / "run", replace(QUICK, epochs=1), progress=False)
    assert load_checkpoint(report.best).class_names == ("class_0", "class_1", "class_2")
    assert "1 classes of split val have no sample to train on: class_2" in caplog.text


def test_training_that_skips_empty_slots(data: Path, tmp_path: Path) -> None:
    settings = replace(QUICK, num_person=2, skip_empty=True)
    report = train(data, tmp_path / "run", settings, progress=False)
    plain = train(data, tmp_path / "plain", replace(settings, skip_empty=False), progress=False)
    assert report.val_top1 is not None
    assert load_checkpoint(report.best).provenance["train"]["skip_empty"] is True
    assert not equal(report.last, plain.last), "nobody counts less in the batch norms"


def test_rare_classes_weigh_more(tmp_path: Path) -> None:
    whole = dataset(16)
    uneven = tuple(a.frame_dir for a in whole.annotations if a.label == 0 or a.frame_dir in ("s1", "s3"))
    save_annotations(replace(whole, split={"train": uneven}), tmp_path / "set.pkl")
    for name, balance in (("even", True), ("uneven", False)):
        train(tmp_path / "set.pkl", tmp_path / name, replace(QUICK, balance=balance), progress=False)
    assert not equal(tmp_path / "even" / "last.safetensors", tmp_path / "uneven" / "last.safetensors")


def test_balanced_training_does_not_teach_a_class_that_has_no_samples(tmp_path: Path) -> None:
    whole = rising()
    save_annotations(replace(whole, class_names=(*(whole.class_names or ()), "nobody")), tmp_path / "set.pkl")
    settings = replace(QUICK, epochs=4, repeat=6, balance=True, label_smoothing=0.1)
    assert train(tmp_path / "set.pkl", tmp_path / "run", settings, progress=False).val_top1 == 1


def test_a_split_without_samples_is_none_to_validate_on(tmp_path: Path) -> None:
    whole = dataset()
    save_annotations(replace(whole, split={"train": whole.split["train"], "val": ()}), tmp_path / "set.pkl")
    assert train(tmp_path / "set.pkl", tmp_path / "run", QUICK, progress=False).val_top1 is None


def test_no_validation_if_none_is_wanted(data: Path, tmp_path: Path) -> None:
    report = train(data, tmp_path / "run", replace(QUICK, val_split="none"), progress=False)
    assert report.val_top1 is None
    assert equal(report.best, report.last)


def test_validation_every_other_epoch(data: Path, tmp_path: Path) -> None:
    train(data, tmp_path / "run", replace(QUICK, epochs=4, val_every=3), progress=False)
    with (tmp_path / "run" / "log.csv").open(newline="") as file:
        assert [bool(row["val_top1"]) for row in csv.DictReader(file)] == [False, False, True, True]


@pytest.mark.parametrize("change", [{"amp": True}, {"deterministic": True}, {"width": 32}, {"momentum": 0.0}])
def test_switches(data: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    report = train(data, tmp_path / "run", replace(QUICK, **change), progress=False)
    assert report.val_top1 is not None
    assert json.loads((tmp_path / "run" / "config.json").read_text())[next(iter(change))] == next(iter(change.values()))


def test_four_streams_and_their_fusion(data: Path, tmp_path: Path) -> None:
    options = ["--epochs", "1", "--repeat", "1", "--batch-size", "8", "--clip-len", "16", "--quiet"]
    result = CliRunner().invoke(main, ["train", str(data), "--out", str(tmp_path / "run"), "--stream", "all", *options])
    assert result.exit_code == 0, result.stderr
    for name in ("joint", "bone", "joint-motion", "bone-motion", "two-stream", "four-stream"):
        assert re.search(rf"^{name} +top-1 \d+\.\d%", result.stderr, re.MULTILINE), result.stderr
    assert load_checkpoint(tmp_path / "run" / "bone" / "best.safetensors").clips.stream == "bone"


def test_a_full_disk_leaves_the_last_checkpoint(data: Path, tmp_path: Path, monkeypatch: Any) -> None:
    train(data, tmp_path / "run", replace(QUICK, epochs=1), progress=False)
    before = weights_of(tmp_path / "run" / "last.safetensors")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    config = json.loads((tmp_path / "run" / "config.json").read_text()) | {"epochs": 2}
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(SkelactError, match="the disk is full"):
        train(data, tmp_path / "run", replace(QUICK, epochs=2), resume=True, progress=False)
    after = weights_of(tmp_path / "run" / "last.safetensors")
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_a_sample_that_breaks_while_training_is_told_in_one_line(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise SkelactError("sample s3: cannot be read")

    monkeypatch.setattr("skelact.dataset.normalise", broken)
    for workers in (0, 2):
        with pytest.raises(SkelactError) as caught:
            train(data, tmp_path / str(workers), QUICK, workers=workers, progress=False)
        assert str(caught.value) == "sample s3: cannot be read"


def test_scalars_for_tensorboard(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra skelact[tensorboard]")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(data, tmp_path / "run", QUICK, progress=False)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert {"loss", "lr", "train_top1", "val_top1"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("loss")] == [0, 1]


def test_clips_are_mixed_and_features_dropped_where_wanted(data: Path, tmp_path: Path) -> None:
    settings = replace(TINY, epochs=1, hidden_joints=("nose",), binary_scores=True)
    for name, change in (("plain", {}), ("mixed", {"mixup": 0.4}), ("dropped", {"dropout": 0.5})):
        train(data, tmp_path / name, replace(settings, **change), progress=False)
    last = {name: tmp_path / name / "last.safetensors" for name in ("plain", "mixed", "dropped")}
    assert not equal(last["plain"], last["mixed"])
    assert not equal(last["plain"], last["dropped"])
    clips = load_checkpoint(last["plain"]).clips
    assert (clips.hidden_joints, clips.binary_scores) == (("nose",), True)


# --- step by step ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scaled", [True, False])
def test_the_learning_rate_rises_and_falls_step_by_step(data: Path, tmp_path: Path, scaled: bool) -> None:
    settings = replace(TINY, epochs=4, warmup_epochs=2.0, lr=0.02, auto_scale_lr=scaled)
    train(data, tmp_path / "run", settings, progress=False)
    with (tmp_path / "run" / "log.csv").open(newline="") as file:
        rates = [float(row["lr"]) for row in csv.DictReader(file)]
    done = np.arange(4) + 5 / 6  # at the last of an epoch's six steps
    expected = np.minimum(1, done / 2) * (1 + np.cos(math.pi * done / 4)) / 2 * 0.02 * (4 / 128 if scaled else 1)
    np.testing.assert_allclose(rates, expected, rtol=2e-3)


def test_settings_of_the_optimiser_reach_it(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, Any]] = []

    class Told(torch.optim.SGD):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            told.append(options)
            super().__init__(*arguments, **options)

    monkeypatch.setattr(torch.optim, "SGD", Told)
    settings = replace(TINY, epochs=1, momentum=0.8, weight_decay=1e-3)
    train(data, tmp_path / "run", settings, progress=False)
    lr = 0.2 * 4 / 128
    assert told == [{"lr": lr, "momentum": 0.8, "weight_decay": 1e-3, "nesterov": True}]


def test_smoothed_labels_are_another_lesson(data: Path, tmp_path: Path) -> None:
    for smoothing in (0.0, 0.4):
        settings = replace(TINY, epochs=1, label_smoothing=smoothing)
        train(data, tmp_path / str(smoothing), settings, progress=False)
    assert not equal(tmp_path / "0.0" / "last.safetensors", tmp_path / "0.4" / "last.safetensors")


def test_the_average_is_what_is_kept(data: Path, tmp_path: Path) -> None:
    for ema in (0.9, 0.0):
        train(data, tmp_path / str(ema), replace(TINY, epochs=1, ema=ema), progress=False)
    assert not equal(tmp_path / "0.9" / "last.safetensors", tmp_path / "0.0" / "last.safetensors")


def test_a_network_in_training_is_measured_as_it_will_predict_and_goes_on_as_it_was(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(classifier_file(tmp_path / "a.safetensors"))
    samples = ClipDataset(dataset().annotations, range(6), checkpoint.clips, train=False)
    network = checkpoint.build()
    expected = score_samples(network, samples, "cpu")
    assert not network.training
    for batch_size in (2, 6):
        np.testing.assert_allclose(score_samples(network.train(), samples, "cpu", batch_size), expected, atol=1e-6)
        assert network.training
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, checkpoint.state_dict[name]), name


def test_processes_share_an_epoch_and_each_epoch_has_its_own_order_and_clips() -> None:
    orders = []
    for epoch in range(2):
        parts = []
        for rank in range(2):
            sampler = training.EpochSampler(11, seed=3, rank=rank, count=2)
            sampler.epoch = epoch
            parts.append(list(sampler))
        assert [len(part) for part in parts] == [6, 6]
        assert {index // 11 for part in parts for index in part} == {epoch}, "clips of this epoch"
        assert {index % 11 for part in parts for index in part} == set(range(11))
        orders.append([index % 11 for index in parts[0]])
        batches = list(training.EvenBatches(sampler, 4))
        assert [len(batch) for batch in batches] == [3, 3]
        assert [index for batch in batches for index in batch] == parts[1]
    assert orders[0] != orders[1]
    alone = training.EpochSampler(10, seed=3, rank=0, count=1)
    assert [len(batch) for batch in training.EvenBatches(alone, 4)] == [4, 3, 3], "no batch of two clips"


def test_clips_and_labels_are_mixed_alike() -> None:
    torch.manual_seed(0)
    target = torch.arange(8)
    clips = torch.nn.functional.one_hot(target).float()
    run: Any = SimpleNamespace(settings=replace(TINY, mixup=0.4))
    for _ in range(5):
        mixed, other, share = training._Run._mix(run, clips, target)
        torch.testing.assert_close(mixed, share * clips + (1 - share) * clips[other])


def test_rare_classes_weigh_as_much_as_others_and_all_as_much_as_before() -> None:
    logits, target = torch.randn(8, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([0] * 6 + [1] * 2)
    each = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    run: Any = SimpleNamespace(settings=TINY, weight=None)
    torch.testing.assert_close(training._Run._loss(run, logits, target), each.mean())
    run.weight = torch.tensor([1 / 6, 1 / 2])
    torch.testing.assert_close(training._Run._loss(run, logits, target), (each[:6].mean() + each[6:].mean()) / 2)


# --- what is trained on ------------------------------------------------------------------------------------------


def test_samples_in_both_splits_are_told(caplog: pytest.LogCaptureFixture) -> None:
    whole = dataset()
    training.prepare(whole, QUICK)
    assert "are trained on" not in caplog.text
    leaky = {**whole.split, "val": (*whole.split["val"], "s0", "s1")}
    training.prepare(replace(whole, split=leaky), QUICK)
    assert "2 of the 6 samples of split val are trained on" in caplog.text


def test_long_samples_make_clips_of_a_hundred_frames() -> None:
    whole = dataset()
    long = [
        replace(a, keypoint=a.keypoint.repeat(5, axis=1), keypoint_score=np.repeat(a.keypoint_score, 5, axis=1))
        for a in whole.annotations
    ]
    job = training.prepare(replace(whole, annotations=long), replace(QUICK, clip_len=None))
    assert job.clips.clip_len == 100
    middle = [replace(a, keypoint=a.keypoint[:, :1].repeat(64, axis=1), keypoint_score=None) for a in whole.annotations]
    assert training.prepare(replace(whole, annotations=middle), replace(QUICK, clip_len=None)).clips.clip_len == 64


def test_a_checkpoint_tells_the_pictures_that_it_knows(data: Path, tmp_path: Path) -> None:
    """Where it looks at them: ``predict`` warns of another aspect ratio."""
    once = replace(TINY, epochs=1)
    whole = dataset()
    mixed = [replace(whole.annotations[0], img_shape=(720, 1280)), *whole.annotations[1:]]
    save_annotations(replace(whole, annotations=mixed), tmp_path / "mixed.pkl")
    for name, path, settings, expected in (
        ("one", data, once, [400, 400]),
        ("several", tmp_path / "mixed.pkl", once, None),
        ("none", data, replace(once, normaliser="body"), None),
    ):
        report = train(path, tmp_path / name, settings, progress=False)
        assert load_checkpoint(report.last).provenance.get("img_shape") == expected, name


def test_the_callers_random_numbers_stay_as_they_are(data: Path, tmp_path: Path) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    train(data, tmp_path / "run", replace(TINY, epochs=1), progress=False)
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)


def test_the_fusions_of_training_are_those_of_the_zoo() -> None:
    for name, weights in (("two-stream", training.TWO_STREAM), ("four-stream", training.FOUR_STREAM)):
        assert {model.stream: weight for model, weight in streams(f"ntu60-2d-{name}")} == weights


def test_the_rows_of_a_head_follow_their_classes(tmp_path: Path) -> None:
    whole = dataset()
    three = [replace(a, label=k % 3) for k, a in enumerate(whole.annotations)]
    save_annotations(replace(whole, annotations=three, class_names=("a", "b", "c")), tmp_path / "set.pkl")
    first = train(tmp_path / "set.pkl", tmp_path / "first", replace(QUICK, epochs=1), progress=False)
    other = replace(whole, annotations=three, class_names=("c", "a", "b"))
    network = training._network(training.prepare(other, QUICK, init=first.best))
    before = weights_of(first.best)["cls_head.fc.weight"]
    np.testing.assert_array_equal(network.state_dict()["cls_head.fc.weight"].numpy(), before[[2, 0, 1]])


# --- random clips ------------------------------------------------------------------------------------------------

INTERPOLATED = ClipSettings(COCO, clip_len=16, num_person=1, normaliser="body", sampling="interpolate")


def clips_of(settings: ClipSettings = INTERPOLATED, count: int = 8, **options: Any) -> Any:
    """Of the first sample, in one epoch after another."""
    layout, dims = ("coco", 2) if settings.dims == 2 else ("nturgb+d", 3)
    annotations = dataset(joints=settings.layout.num_joints, dims=dims, layout=layout).annotations
    data = ClipDataset(annotations, [0], settings, train=True, **options)
    return np.stack([data[index][0].numpy() for index in range(count)])


def test_each_epoch_has_other_clips_and_each_seed_too() -> None:
    uniform = replace(INTERPOLATED, sampling="uniform", normaliser="published")
    one, again, other = (clips_of(uniform, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)
    assert len({clip.tobytes() for clip in one}) > 4


def test_a_crop_is_a_part_of_the_sample() -> None:
    whole, cropped = clips_of(), clips_of(augmentations=("crop",))
    assert (whole == whole[0]).all()
    lengths = np.abs(cropped[:, 0, -1, 0, 0] - cropped[:, 0, 0, 0, 0])
    full = abs(whole[0, 0, -1, 0, 0] - whole[0, 0, 0, 0, 0])
    assert (lengths < full).all()
    assert (lengths > 0.6 * full).all()
    assert np.ptp(lengths) > 0.05 * full


def test_augmentations_are_as_strong_as_is_asked() -> None:
    chosen = ("rotate", "scale", "shift", "noise", "offset")
    changes = [
        np.abs(clips_of(augmentations=chosen, augment_strength=strength) - clips_of()).mean()
        for strength in (0.0, 0.5, 1.0)
    ]
    assert changes[0] < 1e-6 < 0.5 * changes[2] < 1.2 * changes[1] < changes[2]


def test_people_in_3d_are_turned_about_what_is_up_for_their_normaliser() -> None:
    for normaliser, up in (("body", 1), ("published", 2)):
        settings = ClipSettings(NTU, dims=3, with_score=False, clip_len=16, num_person=1, normaliser=normaliser)
        settings = replace(settings, sampling="interpolate")
        turned, plain = clips_of(settings, augmentations=("rotate",)), clips_of(settings)
        changed = np.abs(turned - plain).max(axis=(0, 1, 2, 3))
        assert (changed > 1e-3).tolist() == [axis != up for axis in range(3)], normaliser
