"""Score dumps of three families, and what only looks like one."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stand_ins import Hostile

from skelact.dumps import ScoreDump, load_dump, save_dump
from skelact.errors import SkelactError

SCORES = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
LABELS = [0, 2]


def tensor(row: Any) -> torch.Tensor:
    return torch.tensor(row, dtype=torch.float32)


def mmaction2(**fields: Any) -> list[dict[str, Any]]:
    """As its DumpResults writes: the scores are rows of a batch, and there is more in each sample."""
    batch = tensor(SCORES)
    return [
        {
            **{"pred_score": batch[k], "gt_label": torch.tensor([label]), "pred_label": batch[k].argmax()[None]},
            **{"num_classes": 3, "img_shape": (1080, 1920), **fields},
        }
        for k, label in enumerate(LABELS)
    ]


def first_mmaction2() -> list[dict[str, Any]]:
    """As its first 1.x versions wrote."""
    return [
        {"pred_scores": {"item": tensor(row)}, "gt_labels": {"item": torch.tensor([label])}}
        for row, label in zip(SCORES, LABELS, strict=True)
    ]


DUMPS: dict[str, tuple[Any, bool]] = {
    "mmaction2": (mmaction2(), True),
    "mmaction2's first": (first_mmaction2(), True),
    "mmaction2 in half precision": (mmaction2(pred_score=tensor(SCORES[0]).half()), True),
    "plain numbers": ([{"pred_score": list(row), "gt_label": 1} for row in SCORES], True),
    "an ordered dict": ([OrderedDict(pred_score=row, gt_label=np.array([1])) for row in SCORES], True),
    "PYSKL": (list(SCORES.astype(np.float32)), False),
    "PYSKL's lists": (SCORES.tolist(), False),
    "one array": (SCORES, False),
}


@pytest.mark.parametrize("name", DUMPS)
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_dumps_are_read(tmp_path: Path, name: str, protocol: int) -> None:
    content, labelled = DUMPS[name]
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol))
    dump = load_dump(tmp_path / "a.pkl")
    assert (dump.scores.shape, dump.scores.dtype) == ((2, 3), np.float64)
    assert (dump.labels is not None) == labelled
    assert dump.names is None
    if name in ("mmaction2", "mmaction2's first"):
        assert dump.scores == pytest.approx(SCORES)
        assert dump.labels is not None
        assert dump.labels.tolist() == LABELS


def test_ours_are_read_by_the_peers(tmp_path: Path) -> None:
    """The lines are those of mmaction2's tools that read dumps, with plain pickle."""
    many = np.random.default_rng(0).dirichlet(np.ones(60), 100)
    save_dump(ScoreDump(many, np.arange(100) % 60, tuple(f"s{k}" for k in range(100))), tmp_path / "a.pkl")
    samples = pickle.loads((tmp_path / "a.pkl").read_bytes())
    assert [sample["pred_score"].numpy().shape for sample in samples] == [(60,)] * 100
    assert [sample["gt_label"].item() for sample in samples] == [k % 60 for k in range(100)]
    assert samples[0]["gt_label"].shape == (1,)
    assert samples[0]["pred_score"].dtype == torch.float32
    assert (tmp_path / "a.pkl").stat().st_size < 100 * 2000, "no sample drags the scores of the others along"
    dump = load_dump(tmp_path / "a.pkl")
    assert dump.scores == pytest.approx(many, abs=1e-7)
    assert dump.names == tuple(f"s{k}" for k in range(100))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"annotations": []}, "expected a score dump, a list with a dict .* found a dataset; skelact test takes it"),
        ({"scores": []}, "found a dict"),
        ([], "found an empty list"),
        (np.float64(1), "expected a score dump"),
        ("scores", "found a str"),
        ([{"frame_dir": "a", "keypoint": np.zeros((1, 5, 17, 2))}], "pred_score, found the fields frame_dir, keypoint"),
        ([SCORES], r"sample 0: expected scores \(num_classes,\), found a ndarray of shape \(2, 3\)"),
        ([SCORES[0], SCORES[1, :2]], "sample 1: expected 3 scores as in sample 0, found 2"),
        ([SCORES[0], SCORES[1] * np.nan], "sample 1: expected .* found scores that are no numbers"),
        ([SCORES[0], SCORES[1] * np.inf], "found scores that are no numbers"),
        ([np.array(["a", "b"])], "sample 0: expected scores"),
        ([{1, 2}], "sample 0: expected scores"),
        ([None], "sample 0: expected scores"),
        (mmaction2(gt_label=torch.tensor([3])), r"sample 0: expected gt_label as one class in 0\.\.2, found \[3\]"),
        (mmaction2(gt_label=torch.tensor([0, 1])), "expected gt_label as one class"),
        (mmaction2(gt_label=torch.tensor([0.5])), "expected gt_label as one class"),
        ([*mmaction2(), {"pred_score": SCORES[0]}], "sample 2: expected gt_label as in the others, found none"),
    ],
)
def test_what_is_no_dump(tmp_path: Path, content: Any, message: str) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(SkelactError, match=f"a.pkl: .*{message}") as caught:
        load_dump(tmp_path / "a.pkl")
    assert "\n" not in str(caught.value)


def test_names_count_only_if_all_samples_have_one(tmp_path: Path) -> None:
    """Else they would be those of other samples."""
    samples = mmaction2()
    samples[1]["frame_dir"] = "second"
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(samples))
    assert load_dump(tmp_path / "a.pkl").names is None
    samples[0]["frame_dir"] = "first"
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(samples))
    assert load_dump(tmp_path / "a.pkl").names == ("first", "second")


def test_nothing_in_a_dump_is_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    (tmp_path / "a.pkl").write_bytes(pickle.dumps([{"pred_score": tensor(SCORES[0]), "gt_label": Hostile(trace)}]))
    with pytest.raises(SkelactError, match="refused, nothing was run"):
        load_dump(tmp_path / "a.pkl")
    assert not trace.exists()


def test_damaged_and_missing_files(tmp_path: Path) -> None:
    content = pickle.dumps(mmaction2())
    for length in (0, 1, len(content) // 2, len(content) - 1):
        (tmp_path / "a.pkl").write_bytes(content[:length])
        with pytest.raises(SkelactError, match="expected a pickle"):
            load_dump(tmp_path / "a.pkl")
    with pytest.raises(SkelactError, match="no such file"):
        load_dump(tmp_path / "missing.pkl")


def test_scores_without_labels_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(SkelactError, match="a dump needs labels"):
        save_dump(ScoreDump(SCORES), tmp_path / "a.pkl")
    assert not list(tmp_path.iterdir())
