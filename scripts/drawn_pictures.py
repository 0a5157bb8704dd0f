"""Pictures of drawn people with exact joints, for the training of a pose network.

    python scripts/drawn_pictures.py --out runs/pose/drawn
    python scripts/train_pose.py prepare --drawn runs/pose/drawn

Half of them stand in photographs, beside the people who are there with their labels. Nobody waves or walks as in the
sample videos, nor in their room and street.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
import cv2
import drawn_people
import numpy as np
from daily_data import improvised
from drawn_styles import STYLES
from tqdm import tqdm
from train_pose import SHARED, Photo, label_text, read_photos

from skelact.structures import Array

MOTIONS = tuple(name for name in STYLES if name not in ("wave", "walk"))
IMPROVISED = 0.5  # share of those who go from one random pose to another
IN_PHOTO = 0.5
SHAPES = ((270, 480), (320, 320), (400, 300))  # (H, W) of those that are in none
BACKGROUNDS = ("plain", "gradient", "noise")
COVERED = 0.15  # share of somebody in a photograph who may be hidden by a drawn person
TRIES = 8


def somebody(image: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Draw a person into a picture: keypoint (17, 2) px and bbox (4,) xyxy px."""
    motion = improvised(rng) if rng.random() < IMPROVISED else STYLES[MOTIONS[rng.integers(len(MOTIONS))]](rng)
    person = drawn_people.Person(motion, figure=drawn_people.Figure.random(rng), mirror=bool(rng.random() < 0.5))
    pitch = rng.uniform(-2, 25) if rng.random() < 0.8 else rng.uniform(25, 70)
    pose = replace(person.pose(rng.uniform(0, 3)), travel=0.0)
    body = drawn_people.pose_body(person.figure, pose, rng.uniform(-180, 180), pitch)
    height, width = image.shape[:2]
    scale = height * np.exp(rng.uniform(np.log(0.25), np.log(1.3)))
    ground = rng.uniform(0.5, 0.98) * height if scale < 0.8 * height else 0.2 * height + 0.85 * scale
    return drawn_people.draw_body(image, body, (rng.uniform(0.1, 0.9) * width, ground), scale)


def is_hidden(others: Array, bbox: Array) -> bool:
    """Whether somebody (N, 4) is covered too much by a box (4,)."""
    shared = np.minimum(others[:, 2:], bbox[2:]) - np.maximum(others[:, :2], bbox[:2])
    size = (others[:, 2:] - others[:, :2]).prod(1)
    return bool((shared.clip(0).prod(1) > COVERED * size).any())


def picture(photos: list[Photo], rng: np.random.Generator) -> tuple[Array, str] | None:
    """A picture and its labels; None where there is no room for anybody."""
    photo = photos[rng.integers(len(photos))] if rng.random() < IN_PHOTO else None
    if photo:
        before = np.asarray(cv2.imread(str(photo.path)))
        others, text = photo.bbox, label_text(photo)
    else:
        height, width = SHAPES[rng.integers(len(SHAPES))]
        before = drawn_people.BACKGROUNDS[str(rng.choice(BACKGROUNDS))](rng, width, height)
        others, text = np.zeros((0, 4), np.float32), ""
    people = 1 if photo else int(rng.integers(1, 4))
    image = before
    for _ in range(TRIES):
        drawn = image.copy()
        keypoint, bbox = somebody(drawn, rng)
        size = np.array(image.shape[1::-1])
        inside = ((keypoint >= 0) & (keypoint < size)).all(1)
        if inside.sum() < 6 or is_hidden(others, bbox):
            continue
        joints = np.column_stack([keypoint, inside]).astype(np.float32)[None]
        box = np.clip(bbox, 0, [*size, *size]).astype(np.float32)[None]
        text += label_text(Photo(Path(), "", "train", image.shape[:2], box, np.ones(1, np.float32), joints, None))
        image, others = drawn, np.concatenate([others, box])
        people -= 1
        if not people:
            break
    if image is before:
        return None
    if rng.random() < 0.5:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.2))
    grain = rng.normal(0, rng.uniform(0, 8), image.shape)
    return np.clip(image + grain, 0, 255).astype(np.uint8), text


@click.command()
@click.option("--people", type=click.Path(exists=True, path_type=Path), default=SHARED / "data" / "people")
@click.option("--out", required=True, type=click.Path(path_type=Path))
@click.option("--count", default=1600, show_default=True)
@click.option("--seed", default=0)
def main(people: Path, out: Path, count: int, seed: int) -> None:
    """Draw pictures, with labels in ultralytics' pose format."""
    rng = np.random.default_rng(seed)
    photos = list(read_photos(people, "train"))
    for folder in ("images", "labels"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for k in tqdm(range(count), unit="picture"):
        drawn = picture(photos, rng)
        if drawn:
            cv2.imwrite(str(out / "images" / f"{k:05d}.jpg"), drawn[0], [cv2.IMWRITE_JPEG_QUALITY, 90])
            (out / "labels" / f"{k:05d}.txt").write_text(drawn[1])


if __name__ == "__main__":
    main()
