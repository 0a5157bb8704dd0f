"""The dataset that skelact-daily is trained on: five sources and drawn people, made alike.

    python scripts/daily_data.py --out runs/daily/daily.pkl

JHMDB's annotated joints (DD-Net's files), skelact's own poses of the clips of Weizmann and UT-Interaction and of home
videos with falls, and the joints of drawn people. Each source has its own classes, joints, frame rate and length, and
a network would tell the source instead of the action. So classes that mean the same are one, all joints are COCO's with
eyes and ears hidden, everything runs at 30 frames/s, and everything long is cut into windows of 1 to 2 s, which is
about what JHMDB's samples last. Every sample tells its source and its group (who or what it must not be split from).
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import click
import drawn_people
import numpy as np
from drawn_styles import STYLES, seen
from leave_one_out import GROUPS
from photo_motions import moving, poses_of
from tqdm import tqdm

import skelact
from skelact.annotations import Annotation, AnnotationSet, open_annotations, save_annotations
from skelact.calibration import UNKNOWN
from skelact.clips import resample
from skelact.skeleton import COCO, load_layout
from skelact.structures import Array

SOURCES = ("jhmdb", "weizmann", "ut", "home", "drawn", "photos")
FPS = 30.0
WINDOW = (32, 64)  # frames, shortest and longest
OTHERS = 5  # times as many improvised motions as of each drawn motion
SIDES = np.array([-1, 1])
HIDDEN = ("left_eye", "right_eye", "left_ear", "right_ear")  # JHMDB has one joint for the face

# What a source's class is called here; a class that is not named is not used. Movements that have no name are UNKNOWN,
# or the network would have to name whatever it sees.
JHMDB = {
    "catch": "catch", "clap": "clap", "golf": "golf swing", "jump": "jump", "pick": "bend or pick up", "pour": "pour",
    "pullup": "pull up", "push": "push something", "run": "run", "sit": "sit down", "stand": "stand up",
    "throw": "throw", "walk": "walk", "wave": "wave",
}  # fmt: skip
WEIZMANN = {
    "bend": "bend or pick up", "jack": "jumping jacks", "jump": "jump", "pjump": "jump", "run": "run",
    "side": "gallop sideways", "skip": "skip", "walk": "walk", "wave1": "wave", "wave2": "wave",
}  # fmt: skip
UT = {
    "handshake": "shake hands", "hug": "hug", "kick": "kick somebody", "point": "point", "punch": "punch somebody",
    "push": "push somebody",
}  # fmt: skip
HOME = {
    "Falling (BW)": "fall", "Falling (FW)": "fall", "Fall (FW)": "fall", "Falling (SW)": "fall", "Walking": "walk",
    "Standing": "be still", "Sitting": "be still", "Reading": "be still", "Exercising": UNKNOWN,
}  # fmt: skip
DRAWN = {  # not what the sample videos show: waving, walking, shaking hands
    "run": "run", "jumping_jack": "jumping jacks", "jump": "jump", "pick_up": "bend or pick up", "sit_down": "sit down",
    "stand_up": "stand up", "fall": "fall", "fall_back": "fall", "stand": "be still", "clap": "clap", "throw": "throw",
    "hug": "hug", "push": "push somebody",
}  # fmt: skip
STYLED = {
    "hop": "skip", "jumps": "jump", "gallop": "gallop sideways", "run": "run", "walk": "walk", "wave": "wave",
    "jacks": "jumping jacks", "bend": "bend or pick up", "fall": "fall", "down_with_care": UNKNOWN,
    "still": "be still",
}  # fmt: skip
FROM_NEAR = ("be still", "clap", "hug", "throw", "wave", UNKNOWN)  # can be told by the upper body
ALONG = ("hop", "jumps", "gallop", "run", "walk")
IDLE = {"none": UNKNOWN}  # UT-Interaction's people between their actions
CLASSES = tuple(sorted({*JHMDB.values(), *WEIZMANN.values(), *UT.values(), *HOME.values(), *DRAWN.values(), UNKNOWN}))
IN_COCO = {  # JHMDB's joint of each COCO joint
    "nose": "face",
    **{name: name for name in COCO.joints if name.split("_")[-1] in
       ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")},
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Sample:
    """Poses (M, T, 17, 2) and scores (M, T, 17) at 30 frames/s, with what they show."""

    name: str
    source: str
    group: str
    class_name: str
    keypoint: Array
    keypoint_score: Array


def at_30_fps(sample: Annotation) -> tuple[Array, Array]:
    """A sample's poses, resampled."""
    assert sample.keypoint_score is not None
    fps = float(sample.extra.get("fps") or FPS)
    T = sample.keypoint.shape[1]
    times = np.arange(0, (T - 1) + 1e-6, fps / FPS)
    keypoint, score = resample(
        np.asarray(sample.keypoint, np.float32), np.asarray(sample.keypoint_score, np.float32), times
    )
    assert score is not None
    return keypoint, score


def windows(num_frames: int, rng: np.random.Generator, middle: bool = False) -> Iterator[slice]:
    """Windows over a sample, half overlapping; of a short one, all of it. ``middle``: only about its middle."""
    if num_frames <= WINDOW[1]:
        yield slice(0, num_frames)
        return
    start = 0
    while start < num_frames - WINDOW[0]:
        length = int(rng.integers(WINDOW[0], WINDOW[1] + 1))
        stop = min(start + length, num_frames)
        if not middle or 0.25 < (start + stop) / 2 / num_frames < 0.75:
            yield slice(start, stop)
        start += length // 2


def jhmdb(data: Path, work: Path) -> Iterator[Sample]:
    """DD-Net's joints as COCO's, about the size of a person in a picture of 480 lines."""
    path = work / "jhmdb.pkl"
    if not path.exists():
        skelact.convert([data / "GT_train_1.pkl", data / "GT_test_1.pkl"], path)
    dataset = open_annotations(path)
    joints = load_layout(str(dataset.layout)).joints
    for k, sample in enumerate(dataset.annotations):
        keypoint = np.zeros((*sample.keypoint.shape[:2], COCO.num_joints, 2), np.float32)
        score = np.zeros(keypoint.shape[:3], np.float32)
        for here, there in IN_COCO.items():
            keypoint[:, :, COCO.joints.index(here)] = sample.keypoint[:, :, joints.index(there)] * 200 + 320
            score[:, :, COCO.joints.index(here)] = 1
        class_name = (dataset.class_names or ())[sample.label or 0]
        yield Sample(sample.frame_dir, "jhmdb", f"jhmdb{k % 10}", JHMDB[class_name], keypoint, score)


def clips(source: str, poses: Path, names: dict[str, str], whole: bool, rng: np.random.Generator) -> Iterator[Sample]:
    """Windows of Weizmann's or UT-Interaction's clips; of people who do nothing that has a name, one a clip.

    ``whole``: with those that have windows as a whole, too.
    """
    dataset = open_annotations(poses)
    for sample in dataset.annotations:
        class_name = names.get((dataset.class_names or ())[sample.label or 0])
        found = re.search(GROUPS[source], sample.frame_dir)
        if class_name and found:
            group = f"{source}-{found[1]}" + ("-none" if class_name == UNKNOWN else "")
            keypoint, score = at_30_fps(sample)
            T = keypoint.shape[1]
            parts = list(windows(T, rng, middle=source == "ut"))
            if class_name == UNKNOWN:
                parts = parts[:1]
            elif whole and len(parts) > 1:
                parts.append(slice(0, T))
            for n, part in enumerate(parts):
                name = f"{sample.frame_dir}_{n}"
                yield Sample(name, source, group, class_name, keypoint[:, part], score[:, part])


def home(poses: Path, segments: Path, rng: np.random.Generator) -> Iterator[Sample]:
    """The named activities of the home videos; a fall is cut so that it lies anywhere in its window."""
    of_video = {Path(sample.frame_dir).name: sample for sample in open_annotations(poses).annotations}
    for n, row in enumerate(csv.DictReader(segments.open(encoding="utf-8"))):
        sample = of_video.get(Path(row["path"]).stem)
        class_name = HOME.get(row["class"])
        if sample is None or class_name is None:
            continue
        keypoint, score = at_30_fps(sample)
        start, stop = (round(float(row[key]) * FPS) for key in ("start_s", "stop_s"))
        if class_name == "fall":
            middles = rng.uniform(start + 0.35 * (stop - start), start + 0.65 * (stop - start), 6)
            parts = [slice(max(0, int(m) - 30), int(m) + 30) for m in middles]
        else:
            parts = [slice(start + part.start, start + part.stop) for part in windows(stop - start, rng)]
        for k, part in enumerate(parts):
            one = slice(0, 1)  # these are about one person
            if (score[one, part] > 0).any(-1).mean() > 0.7:
                name = f"{sample.frame_dir}_{n}_{k}"
                yield Sample(name, "home", f"home-{row['subject']}", class_name, keypoint[one, part], score[one, part])


@dataclass(frozen=True)
class Act:
    """What drawn people do in ``num_frames`` frames, seen from ``turn`` and ``pitch`` degrees; noise in px."""

    name: str
    class_name: str
    people: Sequence[drawn_people.Person]
    turn: float
    pitch: float
    num_frames: int
    noise: float

    @classmethod
    def of(
        cls,
        name: str,
        class_name: str,
        people: Sequence[drawn_people.Person],
        turn: float,
        rng: np.random.Generator,
        noise: float = 2.0,
    ) -> Act:
        """For as long as a window, seen from a little above."""
        pitch, num_frames = rng.uniform(-2, 25), int(rng.integers(WINDOW[0], WINDOW[1] + 1))
        return cls(name, class_name, people, turn, pitch, num_frames, noise)

    def joints(self, rng: np.random.Generator) -> Sample:
        """The joints; nothing is drawn."""
        keypoint = seen(self.people, np.arange(self.num_frames) / FPS, self.turn, self.pitch)
        keypoint += rng.normal(0, self.noise, keypoint.shape).astype(np.float32)
        score = np.ones(keypoint.shape[:3], np.float32)
        return Sample(f"drawn/{self.name}", "drawn", group_of_drawn(self.name), self.class_name, keypoint, score)

    def scene(self, rng: np.random.Generator) -> drawn_people.Scene:
        """To be drawn: near or far, halfway through in about the middle of the picture; some without their legs."""
        height, x, y = rng.uniform(0.4, 0.85), rng.uniform(0.4, 0.6), rng.uniform(0.85, 0.98)
        if self.class_name in FROM_NEAR and number_of(self.name) % 3 == 2:
            height, y = height + 0.8, height + 0.95
        people = []
        for person in self.people:
            yaw = person.yaw + self.turn
            half_way = person.pose(self.num_frames / FPS / 2).travel * np.sin(np.radians(yaw)) * 360 / 480
            across = person.shift * np.cos(np.radians(self.turn))
            place = {"x": x - height * half_way, "y": y, "height": height, "shift": across, "yaw": yaw}
            people.append(replace(person, **place))
        background = str(rng.choice(list(drawn_people.BACKGROUNDS)))
        seed = int(rng.integers(1 << 30))
        return drawn_people.Scene(tuple(people), background, seed, float(rng.choice((0, 4, 10))), self.pitch)


def number_of(name: str) -> int:
    """What stands at its end."""
    return int(name.rpartition("_")[2])


def group_of_drawn(name: str) -> str:
    """One of ten."""
    return f"drawn{number_of(name) % 10}"


def drawn(each: int, rng: np.random.Generator) -> Iterator[Act]:
    """People of random build, seen from anywhere, at any speed."""
    for motion, class_name in DRAWN.items():
        for n in range(each):
            mirror = bool(rng.random() < 0.5)
            changes: dict[str, Any] = {"speed": rng.uniform(0.8, 1.3), "offset_s": rng.uniform(0, 3), "mirror": mirror}
            if motion in drawn_people.PAIR_MOTIONS:
                people: Sequence[drawn_people.Person] = drawn_people.pair(
                    motion, rng, **{**changes, "mirror": False, "offset_s": 0.0}
                )
                turn = rng.uniform(-25, 25)
            else:
                if motion in ("sit_down", "stand_up", "fall", "fall_back", "throw", "pick_up"):
                    changes["offset_s"] = 0.0
                scene = drawn_people.scene_of(motion, seed=int(rng.integers(1 << 30)), **changes)
                people, turn = scene.people, rng.uniform(-180, 180)
            yield Act.of(f"{motion}_{n}", class_name, people, turn, rng)
    for n in range(OTHERS * each):
        people = [
            drawn_people.Person(improvised(rng), figure=drawn_people.Figure.random(rng)) for _ in range(1 + n % 2)
        ]
        if len(people) > 1:
            people = [
                replace(one, shift=shift) for one, shift in zip(people, rng.uniform(0.2, 0.6) * SIDES, strict=True)
            ]
        yield Act.of(f"improvised_{n}", UNKNOWN, people, rng.uniform(-180, 180), rng)


def styled(each: int, from_side: float, rng: np.random.Generator) -> Iterator[Act]:
    """People who all move in their own way; a share of those who go somewhere is seen from the side."""
    for motion, class_name in STYLED.items():
        for n in range(each):
            person = drawn_people.Person(STYLES[motion](rng), figure=drawn_people.Figure.random(rng))
            person = replace(person, mirror=bool(rng.random() < 0.5))
            turn = rng.uniform(-180, 180)
            if from_side and motion in ALONG and rng.random() < from_side:
                turn = rng.choice([-90, 90]) + rng.uniform(-30, 30)
            yield Act.of(f"styled_{motion}_{n}", class_name, [person], turn, rng, rng.uniform(0, 12))


def draw(acts: Iterable[Act], out: Path, rng: np.random.Generator) -> None:
    """Draw videos, in a folder for each class, for ``skelact extract-poses``."""
    for act in tqdm(list(acts), unit="video"):
        pictures = drawn_people.render(act.scene(rng), act.num_frames, FPS, (480, 360))
        path = out / act.class_name / f"{act.name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn_people.write_video(path, (frame for frame, _, _ in pictures), FPS)


def pictures(poses: Path) -> Iterator[Sample]:
    """Drawn people as a pose model sees them in their videos, where it was asked to."""
    if not poses.exists():
        return
    dataset = open_annotations(poses)
    for sample in dataset.annotations:
        name = Path(sample.frame_dir).name
        keypoint, score = at_30_fps(sample)
        class_name = (dataset.class_names or ())[sample.label or 0]
        yield Sample(f"pictures/{name}", "drawn", group_of_drawn(name), class_name, keypoint, score)


def photographs(people: Path, count: int, rng: np.random.Generator) -> Iterator[Sample]:
    """People in photographs who move in ways that have no name."""
    poses = poses_of(people) if count else None
    for n in range(count):
        assert poses is not None
        keypoint, score = moving(poses, int(rng.integers(WINDOW[0], WINDOW[1] + 1)), FPS, rng)
        yield Sample(str(n), "photos", f"photos{n % 10}", UNKNOWN, keypoint, score)


def improvised(rng: np.random.Generator) -> drawn_people.Motion:
    """From one random pose to the next, as in dancing, gymnastics or work."""
    reach, steps = rng.uniform(0.3, 1.0), rng.uniform(0.2, 1.0)

    def arm() -> drawn_people.Limb:
        forward, out = rng.uniform(-40, 170) * reach, rng.uniform(0, 120) * reach
        return drawn_people.Limb(forward, out, forward + rng.uniform(0, 130), out + rng.uniform(-60, 60))

    def leg() -> drawn_people.Limb:
        forward = rng.uniform(-25, 80) * steps
        out = rng.uniform(0, 35) * steps
        return drawn_people.Limb(forward, out, forward - rng.uniform(0, 90) * steps, out * rng.uniform(0, 1))

    def pose() -> drawn_people.Pose:
        lean, sway, twist, turn = rng.uniform((-15, -20, -40, -60), (60, 20, 40, 60)) * rng.uniform(0, 1)
        return drawn_people.Pose(arm(), arm(), leg(), leg(), lean=lean, sway=sway, twist=twist, turn=turn)

    times = np.cumsum([0, *rng.uniform(0.3, 1.2, int(rng.integers(2, 5)))]).tolist()
    poses = [pose() for _ in times[1:]]
    return drawn_people.keyframes(*zip(times, [*poses, poses[0]], strict=True))


def as_annotations(samples: list[Sample]) -> list[Annotation]:
    """As the pickle has them: eyes and ears hidden, scores 0 or 1."""
    hidden = [COCO.joints.index(name) for name in HIDDEN]
    found = []
    for sample in samples:
        score = (sample.keypoint_score >= 0.3).astype(np.float32)
        score[:, :, hidden] = 0
        found.append(
            Annotation(
                frame_dir=f"{sample.source}/{sample.name}",
                keypoint=sample.keypoint * (score > 0)[..., None],
                keypoint_score=score,
                img_shape=(480, 640),
                label=CLASSES.index(sample.class_name),
                extra={"fps": FPS, "source": sample.source, "group": sample.group},
            )
        )
    return found


@click.command()
@click.option("--out", default="runs/daily/daily.pkl", type=click.Path(path_type=Path))
@click.option("--shared", default="../shared", type=click.Path(path_type=Path))
@click.option(
    "--poses",
    default=["runs"],
    multiple=True,
    type=click.Path(path_type=Path),
    help="Where extract-poses put its pickles; several hold the same clips as several pose models see them.",
)
@click.option("--drawn", "drawn_each", default=24, help="Samples of each drawn motion.")
@click.option("--styled", "styled_each", default=0, help="Samples of each motion of drawn_styles.")
@click.option("--from-side", default=0.0, help="Share of these who are seen from the side, of those who go somewhere.")
@click.option(
    "--draw", "drawn_to", type=click.Path(path_type=Path), help="Draw videos of drawn people there, and do no more."
)
@click.option("--idle", is_flag=True, help="With UT-Interaction's clips of nothing that has a name, as unknown.")
@click.option("--whole", is_flag=True, help="With whole clips of Weizmann and UT-Interaction besides windows.")
@click.option("--photos", "from_photos", default=0, help="Samples of people in photographs who move, as unknown.")
@click.option("--without", multiple=True, type=click.Choice(SOURCES), help="Leave this source out.")
@click.option("--seed", default=0)
def main(
    out: Path,
    shared: Path,
    poses: tuple[Path, ...],
    drawn_each: int,
    styled_each: int,
    from_side: float,
    drawn_to: Path | None,
    idle: bool,
    whole: bool,
    from_photos: int,
    without: tuple[str, ...],
    seed: int,
) -> None:
    """Write the dataset, with splits by groups: train, val and, of val, what each source has (val_jhmdb, ...)."""
    rng = np.random.default_rng(seed)
    acts = chain(drawn(drawn_each, rng), styled(styled_each, from_side, rng))
    if drawn_to:
        draw(acts, drawn_to, rng)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    segments = shared / "media" / "untrimmed" / "gmdcsa24" / "segments.csv"
    found: dict[str, list[Iterator[Sample]]] = {  # generators: of a source that is left out, no file is read
        "jhmdb": [jhmdb(shared / "data" / "jhmdb", out.parent)],
        "weizmann": [clips("weizmann", folder / "weizmann" / "weizmann.pkl", WEIZMANN, whole, rng) for folder in poses],
        "ut": [clips("ut", folder / "ut" / "ut.pkl", UT | (IDLE if idle else {}), whole, rng) for folder in poses],
        "home": [home(folder / "home" / "home.pkl", segments, rng) for folder in poses],
        "drawn": [pictures(folder / "drawn" / "drawn.pkl") for folder in poses],
        "photos": [photographs(shared / "data" / "people", from_photos, rng)],
    }
    found["drawn"][0] = chain((act.joints(rng) for act in acts), found["drawn"][0])
    samples = [
        replace(sample, name=f"{sample.name}~{poses[k].name}") if k else sample
        for source in SOURCES
        if source not in without
        for k, part in enumerate(found[source])
        for sample in part
    ]
    held = {"jhmdb0", "jhmdb1", "weizmann-lena", "home-1", "ut-9", "ut-10", "ut-7-none", "drawn0", "photos0"}
    names = {sample: f"{sample.source}/{sample.name}" for sample in samples}
    val = [sample for sample in samples if sample.group in held]
    split = {"train": [sample for sample in samples if sample.group not in held], "val": val}
    split |= {f"val_{source}": [sample for sample in val if sample.source == source] for source in SOURCES}
    split |= {f"val_{name}": [s for s in val if s.name.endswith(f"~{name}")] for name in (p.name for p in poses[1:])}
    named = {name: tuple(names[sample] for sample in part) for name, part in split.items() if part}
    save_annotations(AnnotationSet(as_annotations(samples), named, CLASSES, COCO.name), out)
    for source in SOURCES:
        counts = Counter(sample.class_name for sample in samples if sample.source == source)
        click.echo(f"{source}: {sum(counts.values())} samples, {dict(sorted(counts.items()))}")


if __name__ == "__main__":
    main()
