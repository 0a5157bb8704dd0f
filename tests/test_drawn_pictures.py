"""Pictures for the pose network: whoever is drawn is labelled, and those who were there stay."""

from __future__ import annotations

import csv
import gzip
import json
import subprocess
import sys
from pathlib import Path

import cv2
import drawn_people
import numpy as np

SCRIPT = Path(__file__).parents[1] / "scripts" / "drawn_pictures.py"


def photographs(folder: Path) -> Path:
    """One that stands for those in the reference data, with somebody in it."""
    person = drawn_people.Person(drawn_people.MOTIONS["stand"].motion, x=0.2, height=0.8)
    image, keypoint, bbox = next(drawn_people.render(drawn_people.Scene((person,), "noise"), 1))
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), image)
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "split"), ("a.png", "train")])
    (folder / "lsp_joints.json").write_text("{}")
    joints = np.concatenate([keypoint, np.ones((1, 17, 1))], axis=2)
    row = {"path": "a.png", "h": image.shape[0], "w": image.shape[1], "bbox": bbox.tolist(), "bbox_score": [1.0]}
    with gzip.open(folder / "teacher.jsonl.gz", "wt") as lines:
        lines.write(json.dumps({**row, "keypoint": joints.tolist()}) + "\n")
    return folder


def test_everybody_in_a_picture_has_a_label(tmp_path: Path) -> None:
    """In a process of its own, for the training's libraries change a lot in theirs."""
    people, out = photographs(tmp_path / "people"), tmp_path / "out"
    command = [sys.executable, str(SCRIPT), "--people", str(people), "--out", str(out), "--count", "30"]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    images, labels = sorted((out / "images").iterdir()), sorted((out / "labels").iterdir())
    assert [path.stem for path in images] == [path.stem for path in labels]
    assert len(images) > 20
    texts = [path.read_text() for path in labels]
    first_lines = [text.splitlines()[0] for text in texts]
    in_photo = [text for text, line in zip(texts, first_lines, strict=True) if first_lines.count(line) > 1]
    assert 5 < len(in_photo) < len(texts) - 5, "half of them"
    assert {text.count("\n") for text in in_photo} == {2}, "with who was there before"
    for text in texts:
        rows = np.array([line.split() for line in text.splitlines()], float)
        assert rows.shape[1:] == (56,)
        box, joints = rows[:, 1:5], rows[:, 5:].reshape(-1, 17, 3)
        assert ((rows[:, 1:] >= 0) & (rows[:, 1:] <= 1)).all()
        low, high = (box[:, None, :2] + sign * (box[:, None, 2:] / 2 + 0.02) for sign in (-1, 1))
        seen = joints[..., 2] > 0
        assert (seen.sum(1) >= 6).all()
        assert ((joints[..., :2] > low) & (joints[..., :2] < high)).all(-1)[seen].all()
