"""``skelact test``: it sees what ``predict`` sees, and its figures are those of its dump."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from stand_ins import CLASSES, classifier_file, published_file

import skelact
from skelact.annotations import Annotation, AnnotationSet, save_annotations
from skelact.checkpoint import load_checkpoint, save_checkpoint
from skelact.cli import main
from skelact.errors import SkelactError
from skelact.skeleton import NTU, OPENPOSE

NUM_SAMPLES = 12


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classifier_file(tmp_path_factory.mktemp("model") / "joint.safetensors")


@pytest.fixture(scope="module")
def bone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classifier_file(tmp_path_factory.mktemp("model") / "bone.safetensors", stream="bone", seed=1)


@pytest.fixture(autouse=True)
def log_level() -> Iterator[None]:
    """``--quiet`` is for the rest of a process."""
    yield
    logging.getLogger("skelact").setLevel(logging.NOTSET)


def random_samples(joints: int = 17, dims: int = 2) -> list[Annotation]:
    """People who jump about, each in a way of their own."""
    rng = np.random.default_rng(0)
    samples = []
    for k in range(NUM_SAMPLES):
        T = int(rng.integers(10, 40))
        keypoint = rng.normal(0, rng.uniform(1, 40), (1 + k % 2, T, joints, dims)).cumsum(axis=1) + 500
        score = rng.uniform(0.3, 1, keypoint.shape[:3]).astype(np.float32) if dims == 2 else None
        samples.append(Annotation(f"s{k}", keypoint.astype(np.float32), score, (1080, 1920), 0))
    return samples


@pytest.fixture(scope="module")
def truth(model: Path, tmp_path_factory: pytest.TempPathFactory) -> AnnotationSet:
    """Samples whose labels are the model's own answers with ten clips, but for the last three."""
    samples = random_samples()
    path = tmp_path_factory.mktemp("truth") / "set.pkl"
    save_annotations(AnnotationSet(samples), path)
    predictions = skelact.predict(path, model, progress=False)
    answers = [CLASSES.index(result.predictions[0].class_name) for result in predictions.results]
    labels = [answer if k < NUM_SAMPLES - 3 else (answer + 1) % 4 for k, answer in enumerate(answers)]
    labelled = [replace(sample, label=label) for sample, label in zip(samples, labels, strict=True)]
    names = tuple(sample.frame_dir for sample in samples)
    return AnnotationSet(labelled, {"train": names[:4], "val": names[4:]}, CLASSES, "coco")


@pytest.fixture
def data(truth: AnnotationSet, tmp_path: Path) -> Path:
    save_annotations(truth, tmp_path / "set.pkl")
    return tmp_path / "set.pkl"


def saved(dataset: AnnotationSet, path: Path, **changes: Any) -> Path:
    save_annotations(replace(dataset, **changes), path)
    return path


def measure(data: Path, *models: Path, **options: Any) -> Any:
    return skelact.test(data, models, progress=False, **options)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="skelact")


def test_it_sees_what_predict_sees(data: Path, model: Path, bone: Path) -> None:
    """The same scores for every sample, one model or two, one clip or ten."""
    for options in ({"clips": 10}, {"clips": 1}):
        predictions = skelact.predict(data, [model, bone], fusion_weights=[2, 1], progress=False, **options)
        expected = [result.predictions[0].scores for result in predictions.results]
        found = measure(
            saved(skelact.annotations.load_annotations(data), data, split={}),
            *(model, bone),
            fusion_weights=[2, 1],
            batch_size=5,
            **options,
        )
        assert found.scores == pytest.approx(np.stack(expected), abs=1e-5)
        assert found.names == tuple(f"s{k}" for k in range(NUM_SAMPLES))


def test_figures_of_known_answers(data: Path, model: Path) -> None:
    everything = measure(data, model, split="train").metrics
    assert (everything.top1, everything.num_samples) == (1.0, 4)
    found = measure(data, model)
    assert (found.settings["split"], found.metrics.num_samples) == ("val", 8), "the validation split, unless told"
    assert found.metrics.top1 == pytest.approx(5 / 8)
    assert found.metrics.top5 == 1
    assert np.sum(found.metrics.confusion) == 8
    assert found.metrics.ece is not None


def test_without_a_split_all_samples_count(truth: AnnotationSet, model: Path, tmp_path: Path) -> None:
    unlabelled = replace(truth.annotations[0], frame_dir="unlabelled", label=None)
    data = saved(truth, tmp_path / "set.pkl", split={}, annotations=[unlabelled, *truth.annotations])
    found = measure(data, model)
    assert found.settings["split"] is None
    assert found.metrics.num_samples == NUM_SAMPLES, "all that have a label"
    assert found.metrics.top1 == pytest.approx(9 / 12)


def test_the_split_that_the_model_was_validated_on(truth: AnnotationSet, model: Path, tmp_path: Path) -> None:
    names = tuple(sample.frame_dir for sample in truth.annotations)
    data = saved(truth, tmp_path / "set.pkl", split={"xsub_val": names, "xview_val": names[:2]})
    assert measure(data, model, clips=1).settings["split"] == "xsub_val"
    own = tmp_path / "own.safetensors"
    save_checkpoint(replace(load_checkpoint(model), metrics={"val_split": "xview_val"}), own)
    assert measure(data, own, clips=1).settings["split"] == "xview_val"


def test_splits_of_no_known_kind_are_told(
    truth: AnnotationSet, model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = saved(truth, tmp_path / "set.pkl", split={"fold_1": ("s0",), "fold_2": ("s1",)})
    assert measure(data, model, clips=1).metrics.num_samples == NUM_SAMPLES
    assert "none of its splits (fold_1, fold_2) is known to be for validation" in caplog.text


def test_a_temperature_changes_scores_but_not_the_order(data: Path, model: Path, tmp_path: Path) -> None:
    warm = tmp_path / "warm.safetensors"
    save_checkpoint(replace(load_checkpoint(model), metrics={"calibration": {"temperature": 3.0}}), warm)
    cold, other = measure(data, model, clips=1), measure(data, warm, clips=1)
    expected = cold.scores ** (1 / 3)
    assert other.scores == pytest.approx(expected / expected.sum(1, keepdims=True), abs=1e-6)
    assert (cold.metrics.top1, cold.metrics.confusion) == (other.metrics.top1, other.metrics.confusion)
    assert cold.metrics.ece != other.metrics.ece


# --- classes -----------------------------------------------------------------------------------------------------


def test_classes_are_matched_by_name(truth: AnnotationSet, model: Path, tmp_path: Path) -> None:
    """Another order, other case, and a class more that no sample has."""
    order = [2, 0, 3, 1]
    names = ("Jump", *(CLASSES[k].title() for k in order))
    turned = [replace(sample, label=1 + order.index(sample.label)) for sample in truth.annotations]
    data = saved(truth, tmp_path / "set.pkl", annotations=turned, class_names=names)
    found = measure(data, model)
    assert found.class_names == CLASSES
    assert found.metrics.top1 == pytest.approx(5 / 8)
    both = [replace(sample, label=k % 2) for k, sample in enumerate(truth.annotations)]
    names = (CLASSES[0].title(), CLASSES[0])
    twice = saved(truth, tmp_path / "twice.pkl", annotations=both, class_names=names)
    with pytest.raises(SkelactError, match=rf"are one of the model's, '{CLASSES[0]}'; merge them first"):
        measure(twice, model)


def test_other_classes_are_refused(truth: AnnotationSet, model: Path, tmp_path: Path) -> None:
    data = saved(truth, tmp_path / "set.pkl", class_names=("jump", "run", "fall", "sit"))
    with pytest.raises(SkelactError, match=r"set.pkl: .* none of the model's 4 \(wave, walk, shake hands"):
        measure(data, model)


def test_a_model_without_names_takes_those_of_the_dataset(data: Path, tmp_path: Path) -> None:
    nameless = published_file(tmp_path / "j.pth", class_names=[f"class_{k}" for k in range(4)])
    assert measure(data, nameless, clips=1).class_names == CLASSES
    (tmp_path / "names.txt").write_text("\n".join(reversed(CLASSES)))
    told = run("test", data, "--model", nameless, "--clips", 1, "--class-names", tmp_path / "names.txt", "--json", "-")
    assert json.loads(told.stdout)["class_names"] == [*reversed(CLASSES)], "the file says what its outputs are"
    fewer = published_file(tmp_path / "fewer_j.pth", class_names=[f"class_{k}" for k in range(3)])
    with pytest.raises(SkelactError, match="none of the model's 3"):
        measure(data, fewer, clips=1)


def test_a_dataset_without_names_goes_by_number(truth: AnnotationSet, model: Path, tmp_path: Path) -> None:
    found = measure(saved(truth, tmp_path / "set.pkl", class_names=None), model)
    assert (found.class_names, found.metrics.top1) == (CLASSES, 5 / 8)
    samples = [*truth.annotations[:-1], replace(truth.annotations[-1], label=4)]
    data = saved(truth, tmp_path / "more.pkl", class_names=None, annotations=samples)
    with pytest.raises(SkelactError, match=r"sample s11: expected a label in 0\.\.3, .* found 4"):
        measure(data, model)


# --- what does not fit -------------------------------------------------------------------------------------------


def test_samples_of_another_layout_are_named(truth: AnnotationSet, model: Path, bone: Path, tmp_path: Path) -> None:
    odd = Annotation("odd", np.ones((1, 5, 18, 2), np.float32), None, (100, 100), 0)
    data = saved(truth, tmp_path / "set.pkl", annotations=[*truth.annotations, odd], split={})
    with pytest.raises(SkelactError, match="sample odd: the model expects keypoints of layout 'coco'"):
        measure(data, model)
    other = classifier_file(tmp_path / "openpose.safetensors", layout=OPENPOSE)
    with pytest.raises(SkelactError, match="expects joints of layout 'openpose', the dataset says that it has 'coco'"):
        measure(saved(truth, tmp_path / "set.pkl"), model, other)


def test_three_dimensions(tmp_path: Path) -> None:
    model = classifier_file(tmp_path / "3d.safetensors", layout=NTU, dims=3)
    samples = random_samples(25, 3)
    save_annotations(AnnotationSet(samples, layout="nturgb+d"), tmp_path / "set.pkl")
    predictions = skelact.predict(tmp_path / "set.pkl", model, progress=False)
    found = measure(tmp_path / "set.pkl", model)
    assert found.scores == pytest.approx(
        np.stack([result.predictions[0].scores for result in predictions.results]), abs=1e-5
    )


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({}, {"split": "xsub_val"}, "split 'xsub_val': expected one of the dataset's splits, found train, val"),
        ({"split": {"val": ()}}, {}, "split 'val': expected samples with labels, found none"),
        ({}, {"fusion_weights": [1, 2]}, "fusion weights: expected 1, one a model, found 2"),
    ],
)
def test_what_cannot_be_tested(
    truth: AnnotationSet,
    model: Path,
    tmp_path: Path,
    changes: dict[str, Any],
    options: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(SkelactError, match=message):
        measure(saved(truth, tmp_path / "set.pkl", **changes), model, **options)


def test_a_network_that_gives_no_numbers(data: Path, model: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(model)
    weights = {name: tensor.clone() for name, tensor in checkpoint.state_dict.items()}
    weights["cls_head.fc.bias"][0] = float("nan")
    save_checkpoint(replace(checkpoint, state_dict=weights), tmp_path / "nan.safetensors")
    with pytest.raises(SkelactError, match=r"nan.safetensors: sample s4: its scores are no numbers"):
        measure(data, tmp_path / "nan.safetensors")


def test_the_dataset_is_not_overwritten(data: Path, model: Path) -> None:
    before = data.read_bytes()
    with pytest.raises(SkelactError, match="the output would replace its source"):
        measure(data, model, dump=data)
    assert data.read_bytes() == before


# --- the command -------------------------------------------------------------------------------------------------


def test_from_the_command_line(data: Path, model: Path, tmp_path: Path) -> None:
    result = run(
        *("test", data, "--model", model, "--dump", tmp_path / "out" / "scores.pkl"),
        *("--plot", tmp_path / "out" / "confusion.png", "--json", tmp_path / "out" / "metrics.json", "--quiet"),
    )
    assert (result.exit_code, result.stderr) == (0, "")
    assert "set.pkl, split val: 8 samples, 4 classes" in result.stdout
    assert "top-1                 62.50" in result.stdout
    assert result.stdout.count("\n") == 7 + 4, "a line for each class"
    assert (tmp_path / "out" / "confusion.png").read_bytes().startswith(b"\x89PNG")
    content = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert content["schema_version"] == 1
    assert content["metrics"]["top1"] == 0.625
    assert content["settings"]["split"] == "val"
    assert content["sources"][0]["stream"] == "joint"
    assert content["class_names"] == list(CLASSES)
    samples = pickle.loads((tmp_path / "out" / "scores.pkl").read_bytes())
    right = [int(sample["pred_score"].argmax()) == sample["gt_label"].item() for sample in samples]
    assert np.mean(right) == 0.625, "plain pickle reads the dump"


def test_json_on_stdout_stands_alone(data: Path, model: Path) -> None:
    result = run("test", data, "--model", model, "--clips", 1, "--workers", 1, "--json", "-")
    assert json.loads(result.stdout)["settings"]["clips"] == 1
    assert "macro F1" in result.stderr


def test_errors_of_the_command(data: Path, model: Path, tmp_path: Path) -> None:
    assert "none of the model's 26 (be still," in run("test", data).stderr, "skelact-daily, the default"
    same = run("test", data, "--model", model, "--json", tmp_path / "a", "--dump", tmp_path / "a")
    assert "expected a path of its own for each" in same.stderr
    missing = run("test", tmp_path / "missing.pkl", "--model", model)
    assert (missing.exit_code, missing.stderr) == (1, f"Error: {tmp_path / 'missing.pkl'}: no such file\n")
    folder = run("test", data, "--model", model, "--dump", tmp_path)
    assert "expected a file, found a folder" in folder.stderr
