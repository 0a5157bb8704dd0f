"""Motions of drawn people in which no two people are alike: pace, height, stride, and what the arms do meanwhile.

    motion = hop(np.random.default_rng(1))    # a `drawn_people.Motion`: seconds to a pose

`drawn_people` has one pattern of each motion, which is enough to draw; a network that learns from one pattern knows
that pattern only.

    python scripts/drawn_styles.py --out runs/weizmann/drawn.pkl    # poses with the class names of Weizmann
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import click
import numpy as np
from drawn_people import (
    ARM,
    CAMERA_DISTANCE,
    HIPS,
    SIT,
    STAND,
    Figure,
    Limb,
    Motion,
    Person,
    Pose,
    blend,
    both,
    gait,
    keyframes,
    pose_body,
)

from skelact.annotations import Annotation, AnnotationSet, save_annotations
from skelact.skeleton import COCO
from skelact.structures import Array

Style = Callable[[np.random.Generator], Motion]


def _arms(rng: np.random.Generator) -> Callable[[float], tuple[Limb, Limb]]:
    """Left and right arm at a phase in radians: hanging, bent, held out or up, swinging together or in turn."""
    forward, out = rng.choice([0.0, 0.0, rng.uniform(-20, 60)]), rng.choice([8.0, 8.0, rng.uniform(0, 90)])
    elbow, swing = rng.choice([15.0, rng.uniform(0, 120)]), rng.choice([0.0, rng.uniform(5, 45)])
    turns = rng.choice([0.0, math.pi])

    def arm(phase: float) -> Limb:
        upper = forward + swing * math.sin(phase)
        return Limb(upper, out, upper + elbow, out * 0.8)

    return lambda phase: (arm(phase), arm(phase + turns))


def _hops(rng: np.random.Generator, per_s: float, height: float) -> Callable[[float], tuple[float, float, float]]:
    """At a time: the phase in radians, how far off the ground from 0 to 1, and the lift."""
    start = rng.uniform(0, 1)

    def at(t: float) -> tuple[float, float, float]:
        phase = 2 * math.pi * (per_s * t + start)
        up = max(0.0, math.sin(phase))
        return phase, up, height * up

    return at


def hop(rng: np.random.Generator) -> Motion:
    """Along on one leg, the other one bent or held in front."""
    at, arms = _hops(rng, rng.uniform(1.6, 2.8), rng.uniform(0.02, 0.09)), _arms(rng)
    thigh, knee, sway = rng.uniform(-10, 45), rng.uniform(30, 110), rng.uniform(0, 35)
    give, speed, lean = rng.uniform(15, 45), rng.uniform(0.5, 1.5), rng.uniform(0, 15)

    def pose(t: float) -> Pose:
        phase, up, lift = at(t)
        bend = 8 + give * (1 - up)
        free = thigh + sway * math.sin(phase)
        left, right = arms(phase)
        standing, other = Limb(bend / 2, 1, -bend / 2, 0), Limb(free, 2, free - knee, 0)
        return Pose(left, right, standing, other, lean=lean, lift=lift, travel=speed * t, anchor=HIPS)

    return pose


def jumps(rng: np.random.Generator) -> Motion:
    """On both legs together, in place or along."""
    return jump_in_place(rng) if rng.random() < 0.5 else jump_along(rng)


def jump_in_place(rng: np.random.Generator) -> Motion:
    return _jumps(rng, 0.0)


def jump_along(rng: np.random.Generator) -> Motion:
    return _jumps(rng, rng.uniform(0.4, 1.3))


def _jumps(rng: np.random.Generator, speed: float) -> Motion:
    at, arms = _hops(rng, rng.uniform(1.0, 2.4), rng.uniform(0.03, 0.13)), _arms(rng)
    give, lean, together = rng.uniform(10, 70), rng.uniform(0, 15), rng.uniform(0, 6)

    def pose(t: float) -> Pose:
        phase, up, lift = at(t)
        bend = 5 + give * (1 - up)
        left, right = arms(phase)
        leg = Limb(bend * 0.6, together, -bend * 0.4, together / 2)
        return Pose(left, right, leg, leg, lean=lean + 0.3 * bend, lift=lift, travel=speed * t, anchor=HIPS)

    return pose


def gallop(rng: np.random.Generator) -> Motion:
    """Sideways, the legs opening and closing."""
    at, arms = _hops(rng, rng.uniform(1.5, 2.6), rng.uniform(0.01, 0.06)), _arms(rng)
    open_, speed, turn = rng.uniform(12, 30), rng.uniform(0.6, 1.5), rng.choice([-90.0, 90.0])

    def pose(t: float) -> Pose:
        phase, up, lift = at(t)
        apart = 2 + open_ * (0.5 - 0.5 * math.cos(phase))
        bend = 6 + 12 * (1 - up)
        left, right = arms(phase)
        leg = Limb(bend / 2, apart, -bend / 2, apart)
        return Pose(left, right, leg, leg, lift=lift, travel=speed * t, turn=turn, anchor=HIPS)

    return pose


def run(rng: np.random.Generator) -> Motion:
    per_s, speed, height = rng.uniform(1.1, 1.7), rng.uniform(1.2, 2.3), rng.uniform(0.01, 0.05)
    thigh, knee, elbow, lean = rng.uniform(26, 48), rng.uniform(55, 115), rng.uniform(30, 110), rng.uniform(2, 18)

    def pose(t: float) -> Pose:
        lift = height * abs(math.sin(2 * math.pi * per_s * t))
        return replace(gait(t, per_s, speed, thigh, knee, elbow), lean=lean, lift=lift)

    return pose


def walk(rng: np.random.Generator) -> Motion:
    """Along, or in the middle of a picture that goes along; the arms swing in turn, or hold something."""
    per_s, speed, height = rng.uniform(0.65, 1.15), rng.choice([0.0, *rng.uniform(0.4, 1.1, 3)]), rng.uniform(0, 0.012)
    thigh, knee, elbow, lean = rng.uniform(14, 30), rng.uniform(30, 65), rng.uniform(0, 50), rng.uniform(-3, 9)
    start, arms, swings = rng.uniform(0, 1), _arms(rng), rng.random() < 0.7

    def pose(t: float) -> Pose:
        phase = 2 * math.pi * (per_s * t + start)
        left, right = arms(phase)
        step = gait(t + start / per_s, per_s, speed, thigh, knee, elbow)
        step = step if swings else replace(step, left_arm=left, right_arm=right)
        return replace(step, lean=lean, lift=height * abs(math.sin(phase)), travel=speed * t)

    return pose


def wave(rng: np.random.Generator, hands: int | None = None) -> Motion:
    """With one hand or both, from the elbow or with the whole arm, beside the head or above it."""
    per_s, start = rng.uniform(0.6, 2.2), rng.uniform(0, 1)
    upper, lower = rng.uniform(60, 150), rng.uniform(140, 185)
    of_upper, of_lower = rng.choice([0.0, rng.uniform(5, 45)]), rng.uniform(12, 45)
    forward, has_both, hanging = rng.uniform(-10, 40), rng.random() < 0.45, _limb(rng, (-15, 25), (4, 15), 40)
    has_both = hands == 2 if hands else has_both
    leg, lean = Limb(1, rng.uniform(1, 9), -2, 2), rng.uniform(-3, 6)

    def pose(t: float) -> Pose:
        swing = math.sin(2 * math.pi * (per_s * t + start))
        arm = Limb(forward, upper + of_upper * swing, forward, lower + of_lower * swing)
        return Pose(arm, arm if has_both else hanging, leg, leg, lean=lean)

    return pose


def jacks(rng: np.random.Generator) -> Motion:
    per_s, height = rng.uniform(0.7, 1.4), rng.uniform(0.02, 0.08)
    arms, legs, elbow = rng.uniform(90, 160), rng.uniform(10, 26), rng.uniform(-30, 30)

    def pose(t: float) -> Pose:
        apart = 0.5 - 0.5 * math.cos(2 * math.pi * per_s * t)
        arm = Limb(5, 12 + arms * apart, 5, 12 + (arms + elbow) * apart)
        leg = Limb(1, 3 + legs * apart, -2, 3 + legs * apart)
        return both(arm, leg, lift=height * abs(math.sin(2 * math.pi * per_s * t)), anchor=HIPS)

    return pose


def bend(rng: np.random.Generator) -> Motion:
    """Down to the ground, with or without the knees, and up again."""
    down_s, held_s = rng.uniform(0.5, 1.3), rng.uniform(0, 0.5)
    lean, knee, arm = rng.uniform(55, 115), rng.choice([5.0, rng.uniform(5, 110)]), rng.uniform(-20, 40)
    low = both(Limb(arm, 8, arm, 4), Limb(knee * 0.6, 4, -knee * 0.4, 3), lean=lean)
    stops = np.cumsum([rng.uniform(0.05, 0.5), down_s, held_s + 0.01, down_s, 0.3]).tolist()
    return keyframes((0, STAND), *zip(stops, (STAND, low, low, STAND, STAND), strict=True))


def _limb(rng: np.random.Generator, forward: tuple[float, float], out: tuple[float, float], bend: float) -> Limb:
    """Anywhere in a range, its lower part bent forward by up to ``bend``, a knee by a negative one."""
    upper, away = rng.uniform(*forward), rng.uniform(*out)
    return Limb(upper, away, upper + bend * rng.uniform(0, 1), away * rng.uniform(0, 1))


def _flung(rng: np.random.Generator) -> tuple[Limb, Limb]:
    return _limb(rng, (-30, 140), (5, 80), 90), _limb(rng, (-30, 140), (5, 80), 90)


def _lying(rng: np.random.Generator, phi: float) -> Pose:
    """On the ground, with the head in a direction: 0 forward, 90 degrees left."""
    left, right = _flung(rng)
    left_leg, right_leg = _limb(rng, (-10, 50), (2, 20), -80), _limb(rng, (-10, 50), (2, 20), -80)
    size, lean, nod = rng.uniform(75, 95), rng.uniform(-10, 30), rng.uniform(-20, 20)
    tilt, roll = size * math.cos(math.radians(phi)), size * math.sin(math.radians(phi))
    return Pose(left, right, left_leg, right_leg, lean=lean, tilt=tilt, roll=roll, nod=nod)


def fall(rng: np.random.Generator) -> Motion:
    """From standing to the ground in about a second, to any side, stiff or with giving knees."""
    begin_s, fall_s = rng.uniform(0, 0.5), rng.uniform(0.5, 1.0)
    low, part, knee = _lying(rng, rng.uniform(-180, 180)), rng.uniform(0.15, 0.4), rng.choice([5, rng.uniform(5, 100)])
    (left, right), leg = _flung(rng), Limb(knee * 0.5, 5, -knee * 0.5, 4)
    midway = Pose(left, right, leg, leg, lean=rng.uniform(-5, 30), tilt=part * low.tilt, roll=part * low.roll)
    stops = (begin_s + 0.01, begin_s + 0.5 * fall_s, begin_s + fall_s)
    return keyframes((0, STAND), *zip(stops, (STAND, midway, low), strict=True), loop=False)


def down_with_care(rng: np.random.Generator) -> Motion:
    """Crouching, kneeling or lying down and getting up again, at leisure: not a fall."""
    (left, right), leg = _flung(rng), _limb(rng, (20, 90), (2, 25), -130)
    low = Pose(left, right, leg, leg, lean=rng.uniform(0, 60))
    last = low if rng.random() < 0.5 else _lying(rng, rng.uniform(-180, 180))
    stops = np.cumsum([0.01, *rng.uniform(0.9, 2.0, 2), rng.uniform(0.2, 2.0), *rng.uniform(0.9, 2.0, 2)]).tolist()
    pose = keyframes((0, STAND), *zip(stops, (STAND, low, last, last, low, STAND), strict=True))
    start = rng.uniform(0, stops[-1])
    return lambda t: pose(t + start)


def still(rng: np.random.Generator) -> Motion:
    """Standing, sitting or lying about, the arms moving a little."""
    pose = (STAND, SIT, replace(SIT, lean=rng.uniform(-30, 40)), _lying(rng, rng.uniform(-180, 180)))[rng.integers(4)]
    left, right = _flung(rng)
    moved = replace(pose, left_arm=left, right_arm=right)
    start, way = rng.uniform(0, 1), rng.uniform(0, 0.05)
    return lambda t: blend(pose, moved, start + way * math.sin(t))


def exercise(rng: np.random.Generator) -> Motion:
    """Gymnastics, yoga or work, much of it on the floor: from one pose to another and back, or held."""

    def near(pose: Pose, by: float = 12) -> Pose:
        """The same pose, as somebody else takes it."""

        def limb(one: Limb) -> Limb:
            return Limb(*(np.array(one) + rng.normal(0, by, 4)).tolist())

        lean, sway, tilt = rng.normal((pose.lean, pose.sway, pose.tilt), by / 2)
        arms, legs = (limb(pose.left_arm), limb(pose.right_arm)), (limb(pose.left_leg), limb(pose.right_leg))
        return Pose(arms[0], arms[1], legs[0], legs[1], lean=lean, sway=sway, tilt=tilt, roll=pose.roll)

    side = rng.choice([-1.0, 1.0])
    up, straight, bent = Limb(165, 12, 172, 8), Limb(0, 4, -4, 3), Limb(62, 6, -58, 4)
    lying, kneeling = both(Limb(5, 25, 8, 25), straight, tilt=-88), both(Limb(10, 10, 20, 8), Limb(8, 7, -86, 5))
    on_fours = both(Limb(85, 6, 88, 4), Limb(80, 6, -10, 4), tilt=75)
    lunge = Pose(up, up, Limb(75, 5, -8, 4), Limb(-28, 5, -62, 4))
    ways = (  # from, to
        (both(Limb(82, 8, 88, 6), straight, tilt=76), both(Limb(35, 35, 105, 15), straight, tilt=85)),  # press-up
        (both(Limb(160, 8, 165, 6), straight, tilt=45, lean=65), both(Limb(82, 8, 88, 6), straight, tilt=76)),  # dog
        (
            both(Limb(110, 30, 150, -10), bent, tilt=-88),
            both(Limb(60, 30, 120, -10), bent, tilt=-88, lean=65),
        ),  # sit-up
        (lying, both(Limb(5, 25, 8, 25), Limb(75, 4, 60, 3), tilt=-88)),  # legs raised
        (kneeling, both(Limb(120, 10, 130, 8), Limb(25, 7, -110, 5), lean=105)),  # prayer
        (on_fours, replace(on_fours, left_arm=up, right_leg=straight)),
        (STAND, lunge),
        (lunge, replace(lunge, lean=45)),
        (both(Limb(0, 85, 0, 90), Limb(0, 28, 0, 28)), both(Limb(0, 85, 0, 90), Limb(0, 28, 0, 28), sway=55 * side)),
        (STAND, Pose(up, up, straight, Limb(-70, 4, -80, 3), lean=75)),  # balance
        (STAND, both(Limb(90, 10, 90, 5), Limb(85, 18, -40, 6), lean=35)),  # squat
        (both(ARM, bent, lean=10), both(Limb(60, 15, 90, 5), bent, lean=50)),  # crouching, at work on the floor
        (kneeling, _lying(rng, rng.uniform(-180, 180))),
    )
    first, second = map(near, ways[rng.integers(len(ways))])
    if rng.random() < 0.25:  # held
        second = blend(first, second, rng.uniform(0, 0.15))
    stops = np.cumsum(
        [*rng.uniform(0.05, 1.0, 1), *rng.uniform(0.5, 1.8, 1), *rng.uniform(0.05, 1.5, 1), *rng.uniform(0.5, 1.8, 1)]
    )
    pose, start = (
        keyframes((0, first), *zip(stops.tolist(), (first, second, second, first), strict=True)),
        rng.uniform(0, 5),
    )
    return lambda t: pose(t + start)


def ride(rng: np.random.Generator) -> Motion:
    """On a board or skates: crouching more and less, leaning to the sides, the arms out for balance."""
    speed, turn = rng.uniform(0, 2.0), rng.choice([0.0, -80.0, 80.0])
    apart, knee, lean = rng.uniform(4, 22), rng.uniform(10, 100), rng.uniform(0, 55)
    periods, starts = rng.uniform(0.8, 4.0, 5), rng.uniform(0, 2 * math.pi, 5)
    reach, hop = rng.uniform(10, 90), rng.choice([0.0, 0.0, rng.uniform(0.03, 0.15)])

    def pose(t: float) -> Pose:
        a, b, c, d, e = np.sin(2 * math.pi * t / periods + starts)
        bend = knee * (0.75 + 0.25 * a)
        leg = Limb(bend * 0.55, apart, -bend * 0.45, apart / 2)
        left, right = (
            Limb(20 * b, reach + 25 * c, 20 + 30 * b, reach),
            Limb(-20 * b, reach - 25 * c, 20, reach + 20 * d),
        )
        rise = hop * max(0.0, e - 0.5)
        return Pose(left, right, leg, leg, lean=lean + 15 * d, sway=20 * b, lift=rise, turn=turn, travel=speed * t)

    return pose


def at_table(rng: np.random.Generator) -> Motion:
    """Sitting and busy with the hands in front, leaning over it and to the sides: work, games, instruments."""
    forward, periods, starts = rng.uniform(-5, 50), rng.uniform(0.3, 4.0, 6), rng.uniform(0, 2 * math.pi, 6)
    upper, lower, inward = rng.uniform(0, 60, 2), rng.uniform(50, 130, 2), rng.uniform(-50, 20, 2)
    much = rng.uniform(0, 1, 6)

    def pose(t: float) -> Pose:
        a, b, c, d, e, f = much * np.sin(2 * math.pi * t / periods + starts)
        left = Limb(upper[0] + 25 * a, 15, lower[0] + 25 * b, inward[0] + 20 * e)
        right = Limb(upper[1] + 25 * c, 15, lower[1] + 25 * d, inward[1] + 20 * f)
        return replace(SIT, left_arm=left, right_arm=right, lean=forward + 15 * e, sway=30 * f, nod=-0.5 * forward)

    return pose


STYLES: dict[str, Style] = {
    "hop": hop, "jumps": jumps, "gallop": gallop, "run": run, "walk": walk, "wave": wave, "jacks": jacks, "bend": bend,
    "fall": fall, "down_with_care": down_with_care, "still": still, "exercise": exercise, "ride": ride,
    "at_table": at_table,
}  # fmt: skip

WEIZMANN: dict[str, Style] = {
    "bend": bend, "jack": jacks, "jump": jump_along, "pjump": jump_in_place, "run": run, "side": gallop, "skip": hop,
    "walk": walk, "wave1": partial(wave, hands=1), "wave2": partial(wave, hands=2),
}  # fmt: skip
FRONTAL = ("jack", "pjump", "wave1", "wave2")  # seen from the front, the others from the side


def seen(people: Sequence[Person], times: Array, turn: float, pitch: float) -> Array:
    """Joints (M, T, 17, 2) in pixels of a picture of 640 x 480, for a camera that people are turned to.

    Args:
        people: M of them.
        times: (T,) seconds.
        turn: degrees, added to everybody's yaw.
        pitch: degrees by which the camera looks down.
    """
    keypoint = np.zeros((len(people), len(times), 17, 2), np.float32)
    for m, person in enumerate(people):
        for t, time_s in enumerate(times):
            body = pose_body(person.figure, person.pose(time_s), person.yaw + turn, pitch)
            depth = CAMERA_DISTANCE / max(1.0, CAMERA_DISTANCE - body.root[2])
            across = person.shift * np.cos(np.radians(turn))
            keypoint[m, t, :, 0] = 320 + 300 * (across + body.joint[:, 0] * depth)
            keypoint[m, t, :, 1] = 400 - 300 * body.joint[:, 1] * depth
    return keypoint


@click.command()
@click.option("--out", required=True, type=click.Path(path_type=Path))
@click.option("--each", default=60, show_default=True, help="Samples of each motion.")
@click.option("--seconds", default=1.6, show_default=True)
@click.option("--fps", default=25.0, show_default=True)
@click.option("--seed", default=0)
def main(out: Path, each: int, seconds: float, fps: float, seed: int) -> None:
    """Write a pickle of poses of motions, seen about as Weizmann's camera would; nothing is drawn."""
    rng = np.random.default_rng(seed)
    times = np.arange(round(seconds * fps)) / fps
    samples = []
    for label, (name, style) in enumerate(WEIZMANN.items()):
        for n in range(each):
            person = Person(style(rng), figure=Figure.random(rng), mirror=bool(rng.random() < 0.5))
            turn = rng.uniform(-30, 30) + (0 if name in FRONTAL else rng.choice([-90, 90]))
            keypoint = seen([person], times + rng.uniform(0, 1), turn, rng.uniform(-2, 12))
            keypoint += rng.normal(0, 1.5, keypoint.shape).astype(np.float32)
            score = np.ones(keypoint.shape[:3], np.float32)
            samples.append(Annotation(f"drawn/{name}_{n}", keypoint, score, (480, 640), label=label))
    split = {"train": tuple(sample.frame_dir for sample in samples)}
    save_annotations(AnnotationSet(samples, split, tuple(WEIZMANN), COCO.name), out)


if __name__ == "__main__":
    main()
