"""Drawn people: human figures with known joints performing known motions, for tests, samples and training.

A motion is a function of time that gives a `Pose` (joint angles); a `Figure` turns it into 17 COCO joints by
forward kinematics and draws the body around them; a `Scene` puts several people before a background:

    scene = scene_of("wave", seed=1)
    for frame, keypoint, bbox in render(scene, num_frames=90, fps=30, size=(640, 360)):
        ...  # (H, W, 3) BGR uint8, (N, 17, 2) px float32, (N, 4) xyxy px float32

Commands:

    python scripts/drawn_people.py --motion wave --out wave.mp4 --seconds 3 --joints wave.json
    python scripts/drawn_people.py --story crossing --out crossing.mp4
    python scripts/drawn_people.py --contact-sheet sheet.png
    python scripts/drawn_people.py --pose-model ../shared/weights/yolov8n-pose_int8_openvino_model
    python scripts/drawn_people.py --samples tests/assets     # makes the committed sample videos

Axes are the body's: x to its left, y up, z forward; lengths are shares of the body height. At yaw 0 a person
faces the camera, at 90 the right edge of the picture, at -90 the left edge, at 180 away from the camera.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import av
import cv2
import numpy as np

JOINTS = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee",
    "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip
JOINT = {name: index for index, name in enumerate(JOINTS)}
MIRRORED_JOINTS = [0, *(i + 1 if i % 2 else i - 1 for i in range(1, len(JOINTS)))]
ANKLES = (JOINT["left_ankle"], JOINT["right_ankle"])
HIPS = (JOINT["left_hip"], JOINT["right_hip"])
# How far the body reaches below each joint when that joint lies on the ground.
CLEARANCE = np.array([0.05] * 5 + [0.05] * 2 + [0.03] * 4 + [0.07] * 2 + [0.04] * 2 + [0.045] * 2)

Colour = tuple[int, int, int]


# ---------------------------------------------------------------------------------------------------- poses


class Limb(NamedTuple):
    """Directions of an arm's or a leg's two bones, degrees from hanging straight down.

    They are relative to the upright body and not to the trunk, so that the arms of a person who bends hang.
    """

    forward: float = 0.0
    out: float = 0.0
    lower_forward: float = 0.0
    lower_out: float = 0.0


ARM, LEG = Limb(0, 10, 12, 6), Limb(1, 4, -2, 2)  # of somebody who stands


@dataclass(frozen=True)
class Pose:
    """Joint angles in degrees, position in body heights."""

    left_arm: Limb = ARM
    right_arm: Limb = ARM
    left_leg: Limb = LEG
    right_leg: Limb = LEG
    lean: float = 0.0  # trunk, forward
    sway: float = 0.0  # trunk, to the left
    twist: float = 0.0  # shoulders against hips, to the left
    nod: float = 0.0  # head against trunk, down
    look: float = 0.0  # head against trunk, to the left
    tilt: float = 0.0  # whole body, forward
    roll: float = 0.0  # whole body, to the left
    turn: float = 0.0  # whole body, about the upright axis
    travel: float = 0.0  # way covered in the direction the person faced at the start
    lift: float = 0.0  # height of the lowest point of the body above the ground
    anchor: tuple[int, ...] = ANKLES  # joints whose middle stays at the person's place

    def mirrored(self) -> Pose:
        """The same pose with left and right exchanged."""
        return Pose(
            self.right_arm, self.left_arm, self.right_leg, self.left_leg, self.lean, -self.sway, -self.twist,
            self.nod, -self.look, self.tilt, -self.roll, -self.turn, self.travel, self.lift,
            tuple(MIRRORED_JOINTS[joint] for joint in self.anchor),
        )  # fmt: skip


Motion = Callable[[float], Pose]
STAND = Pose()


def blend(first: Pose, second: Pose, weight: float) -> Pose:
    """`first` at weight 0, `second` at weight 1, in between or beyond otherwise; `second`'s anchor."""

    def mix(a: float, b: float) -> float:
        return a + weight * (b - a)

    mixed: dict[str, Any] = {}
    for f in fields(Pose):
        a, b = getattr(first, f.name), getattr(second, f.name)
        if isinstance(a, Limb):
            mixed[f.name] = Limb(*map(mix, a, b))
        elif f.name != "anchor":
            mixed[f.name] = mix(a, b)
    return replace(second, **mixed)


def smooth(t: float, start: float, stop: float) -> float:
    """0 before start, 1 after stop, an S curve between."""
    u = min(max((t - start) / (stop - start), 0.0), 1.0)
    return u * u * (3 - 2 * u)


def keyframes(*keys: tuple[float, Pose], loop: bool = True) -> Motion:
    """A motion through (time in seconds, pose); after the last it starts again, or holds its last pose."""

    def pose(t: float) -> Pose:
        last_s = keys[-1][0]
        t = t % last_s if loop else min(t, last_s)
        for (start_s, first), (stop_s, second) in pairwise(keys):
            if t <= stop_s:
                return blend(first, second, smooth(t, start_s, stop_s))
        return keys[-1][1]

    return pose


def both(arm: Limb = ARM, leg: Limb = LEG, **angles: Any) -> Pose:
    """A pose with the same arm and leg on both sides."""
    return Pose(arm, arm, leg, leg, **angles)


def wave(t: float) -> Pose:
    swing = 25 * math.sin(2 * math.pi * 1.5 * t)
    return replace(STAND, right_arm=Limb(12, 72, 15, 172 + swing), look=4)


def wave_both(t: float) -> Pose:
    swing = 25 * math.sin(2 * math.pi * 1.4 * t)
    arm = Limb(10, 105, 12, 165 + swing)
    return both(arm)


def gait(t: float, cycles_per_s: float, speed: float, thigh: float, knee: float, elbow: float) -> Pose:
    """Walking and running: thighs swing by +-`thigh`, knees bend by `knee` while a leg comes forward."""
    phase = 2 * math.pi * cycles_per_s * t

    def leg(phase: float) -> Limb:
        forward = thigh * (0.15 + math.sin(phase))
        bend = 6 + knee * max(0.0, math.cos(phase - 0.2)) ** 1.5
        return Limb(forward, 1, forward - bend, 0)

    def arm(phase: float) -> Limb:
        forward = -thigh * math.sin(phase)
        return Limb(forward - 4, 8, forward + elbow, 0)

    return replace(
        STAND,
        left_leg=leg(phase),
        right_leg=leg(phase + math.pi),
        left_arm=arm(phase),
        right_arm=arm(phase + math.pi),
        twist=thigh / 4 * math.sin(phase),
        travel=speed * t,
        anchor=HIPS,
    )


WALK_SPEED = 0.75  # body heights per second


def walk(t: float) -> Pose:
    return replace(gait(t, cycles_per_s=0.95, speed=WALK_SPEED, thigh=24, knee=48, elbow=20), lean=3)


def run(t: float) -> Pose:
    bounce = 0.035 * abs(math.sin(2 * math.pi * 1.4 * t))
    return replace(gait(t, cycles_per_s=1.4, speed=1.7, thigh=38, knee=85, elbow=85), lean=11, lift=bounce)


def jumping_jack(t: float) -> Pose:
    apart = 0.5 - 0.5 * math.cos(2 * math.pi * 0.9 * t)
    arm, leg = Limb(5, 12 + 146 * apart, 5, 12 + 160 * apart), Limb(1, 3 + 20 * apart, -2, 3 + 18 * apart)
    hop = 0.05 * abs(math.sin(2 * math.pi * 0.9 * t))
    return both(arm, leg, lift=hop)


CROUCH = both(Limb(-35, 10, -25, 8), Limb(55, 6, -35, 3), lean=32, nod=-15)
FLY = both(Limb(158, 18, 168, 12), Limb(-4, 5, -12, 4), lift=0.17)
LAND = both(Limb(35, 20, 60, 15), Limb(38, 6, -25, 3), lean=20)
jump = keyframes(
    (0, STAND), (0.5, CROUCH), (0.75, FLY), (0.85, FLY), (1.15, LAND), (1.5, STAND), (1.8, STAND)
)  # fmt: skip

REACH_DOWN = both(Limb(12, 8, 8, 4), Limb(48, 6, -28, 3), lean=98, nod=5)
pick_up = keyframes((0, STAND), (0.9, REACH_DOWN), (1.2, REACH_DOWN), (2.1, STAND), (2.5, STAND))

SQUAT = both(Limb(88, 8, 90, 0), Limb(88, 14, -32, 6), lean=38, nod=-25)
squat = keyframes((0, STAND), (0.8, SQUAT), (1.0, SQUAT), (1.8, STAND), (2.0, STAND))

SIT_LEAN = both(Limb(25, 10, 45, 5), Limb(55, 6, -22, 4), lean=38, nod=-15)
SIT = both(Limb(12, 10, 62, -2), Limb(86, 6, -3, 4), lean=4)
sit_down = keyframes((0, STAND), (0.4, STAND), (0.9, SIT_LEAN), (1.4, SIT), loop=False)
stand_up = keyframes((0, SIT), (0.4, SIT), (0.9, SIT_LEAN), (1.4, STAND), loop=False)

STUMBLE = both(Limb(55, 15, 85, 10), Limb(12, 5, -22, 4), lean=12, tilt=18)
DROP = both(Limb(100, 20, 135, 15), Limb(10, 6, -25, 5), lean=8, tilt=62)
LIE = both(Limb(125, 35, 165, 25), Limb(0, 8, -8, 6), lean=-2, tilt=88, nod=-20)
fall = keyframes((0, STAND), (0.5, STAND), (0.9, STUMBLE), (1.2, DROP), (1.4, LIE), loop=False)

SLIP = both(Limb(45, 35, 70, 30), Limb(20, 6, -18, 4), lean=4, tilt=-22)
LIE_BACK = both(Limb(10, 50, 12, 60), Limb(18, 9, -12, 8), lean=4, tilt=-88, nod=8)
fall_back = keyframes((0, STAND), (0.5, STAND), (0.9, SLIP), (1.3, LIE_BACK), loop=False)

STANDING_FOOT = (JOINT["left_ankle"],)
SWING_BACK = Pose(Limb(25, 15, 45, 8), Limb(-30, 15, -15, 8), right_leg=Limb(-28, 4, -75, 2), lean=4)
KICK = Pose(Limb(-30, 25, -15, 15), Limb(40, 25, 55, 15), right_leg=Limb(82, 4, 76, 2), lean=-14)
kick = keyframes((0, STAND), (0.35, SWING_BACK), (0.6, KICK), (0.7, KICK), (1.1, STAND), (1.3, STAND))

STANCE = Pose(right_leg=Limb(-16, 6, -22, 4), left_leg=Limb(20, 6, -4, 4), lean=6)
GUARD = replace(STANCE, left_arm=Limb(35, 12, 140, -8), right_arm=Limb(25, 12, 140, -8))
JAB = replace(GUARD, right_arm=Limb(88, 2, 90, -4), twist=28, lean=10)
CROSS = replace(GUARD, left_arm=Limb(88, 2, 90, -4), twist=-18, lean=10)
punch = keyframes((0, GUARD), (0.18, JAB), (0.45, GUARD), (0.63, CROSS), (0.9, GUARD), (1.1, GUARD))

POINT = replace(STAND, right_arm=Limb(86, 8, 90, 2), nod=-2)
point = keyframes((0, STAND), (0.3, STAND), (0.8, POINT), (2.4, POINT), (3.0, STAND))

HANDS_APART, HANDS_TOGETHER = Limb(35, 25, 105, 5), Limb(42, 12, 110, -38)
clap = keyframes((0, both(HANDS_APART)), (0.2, both(HANDS_TOGETHER)), (0.4, both(HANDS_APART)))

COCK = replace(STANCE, right_arm=Limb(-25, 85, 25, 165), left_arm=Limb(70, 15, 80, 10), twist=-30, lean=-8)
RELEASE = replace(STANCE, right_arm=Limb(125, 25, 110, 5), left_arm=Limb(-10, 20, 15, 10), twist=25, lean=14)
FOLLOW = replace(STANCE, right_arm=Limb(40, 0, 35, -20), left_arm=Limb(-25, 20, 0, 10), twist=30, lean=22)
throw = keyframes((0, STAND), (0.5, COCK), (0.7, COCK), (0.88, RELEASE), (1.05, FOLLOW), (1.6, STAND))


def walk_to_and_fro(distance: float, pause_s: float = 0.6) -> Motion:
    """Walks `distance` body heights, waits for at least half a second while turning, and walks back."""
    way_s = distance / WALK_SPEED
    half_s = way_s + pause_s

    def pose(t: float) -> Pose:
        u = t % (2 * half_s)
        back, u = u >= half_s, u % half_s
        step = blend(walk(u), replace(STAND, anchor=HIPS), smooth(u, way_s - 0.15, way_s + 0.15))
        travel = min(u, way_s) * WALK_SPEED
        turn = 180 * (back + smooth(u, way_s, way_s + 0.5))
        return replace(step, travel=distance - travel if back else travel, turn=turn)

    return pose


class View(NamedTuple):
    """A motion, the yaw in degrees from which it is best seen, and the x to start at."""

    motion: Motion
    yaw: float
    x: float = 0.5


MOTIONS: dict[str, View] = {
    "stand": View(lambda t: STAND, 0),
    "wave": View(wave, 0),
    "wave_both": View(wave_both, 0),
    "walk": View(walk, 90, 0.12),
    "run": View(run, 90, 0.12),
    "jumping_jack": View(jumping_jack, 0),
    "jump": View(jump, 25),
    "pick_up": View(pick_up, 70),
    "squat": View(squat, 55),
    "sit_down": View(sit_down, 60),
    "stand_up": View(stand_up, 60),
    "fall": View(fall, 80, 0.3),
    "fall_back": View(fall_back, 70, 0.7),
    "kick": View(lambda t: replace(kick(t), anchor=STANDING_FOOT), 65),
    "punch": View(punch, 65),
    "point": View(point, 65),
    "clap": View(clap, 15),
    "throw": View(throw, 65),
}


class Pair(NamedTuple):
    """What two people who face each other do, and their distance in body heights."""

    first: Motion
    second: Motion
    distance: float


STEP = replace(STAND, left_leg=Limb(-9, 4, -14, 2), right_leg=Limb(12, 4, 4, 2))
SHAKE_UP, SHAKE_DOWN = Limb(30, 4, 86, 0), Limb(26, 4, 70, 0)


def shake_hands(t: float) -> Pose:
    t %= 3.6
    up = 0.5 + 0.5 * math.sin(2 * math.pi * 1.7 * t)
    arm = Limb(*(up * np.array(SHAKE_UP) + (1 - up) * np.array(SHAKE_DOWN)).tolist())
    return blend(STEP, replace(STEP, right_arm=arm, lean=4), smooth(t, 0.2, 0.8) - smooth(t, 2.8, 3.4))


EMBRACE = Pose(Limb(58, 30, 80, -68), Limb(75, 30, 105, -62), lean=6, nod=8)


def hug(t: float) -> Pose:
    t %= 4.2
    near, held = smooth(t, 0.1, 1.0) - smooth(t, 3.2, 4.1), smooth(t, 0.6, 1.3) - smooth(t, 2.8, 3.4)
    moving = math.sin(math.pi * near)
    step = blend(STAND, gait(near, 1.0, 0.0, thigh=18, knee=40, elbow=15), moving)
    return replace(blend(step, EMBRACE, held), travel=0.26 * near)


WIND_UP = replace(STANCE, left_arm=Limb(20, 15, 110, 2), right_arm=Limb(20, 15, 110, 2))
SHOVE = replace(STANCE, left_arm=Limb(86, 6, 90, 0), right_arm=Limb(86, 6, 90, 0), lean=20)
push = keyframes(
    (0, STAND), (0.7, WIND_UP), (0.9, WIND_UP), (1.1, SHOVE), (1.35, SHOVE), (2, STAND), (3, STAND)
)  # fmt: skip
FLUNG_LEFT, FLUNG_RIGHT = Limb(45, 30, 70, 25), Limb(40, 35, 60, 30)
HIT = Pose(FLUNG_LEFT, FLUNG_RIGHT, Limb(30, 5, 5, 3), Limb(-5, 5, -20, 3), lean=-22, travel=-0.16)
STAGGER = Pose(FLUNG_LEFT, FLUNG_RIGHT, Limb(-8, 5, -25, 3), Limb(18, 5, 0, 3), lean=6, travel=-0.42)
BACK = replace(STAND, travel=-0.42)
pushed = keyframes(
    (0, STAND), (1.05, STAND), (1.3, HIT), (1.7, STAGGER), (2.1, BACK), (2.4, BACK), (3, STAND)
)  # fmt: skip

PAIR_MOTIONS: dict[str, Pair] = {
    "shake_hands": Pair(shake_hands, shake_hands, 0.56),
    "hug": Pair(hug, hug, 0.7),
    "push": Pair(push, pushed, 0.46),
}


# --------------------------------------------------------------------------------------------------- figures

SKINS = [(178, 206, 240), (150, 186, 228), (118, 158, 208), (92, 130, 184), (66, 96, 148), (46, 66, 108)]
HAIRS = [(30, 28, 32), (34, 48, 72), (48, 78, 118), (88, 150, 196), (40, 70, 150), (150, 150, 155)]
CLOTHES = [
    (60, 50, 190), (170, 90, 40), (70, 140, 60), (40, 170, 230), (150, 70, 130), (225, 225, 228),
    (60, 60, 64), (160, 150, 60), (110, 120, 220), (50, 100, 200),
]  # fmt: skip
TROUSERS = [(110, 70, 45), (70, 50, 40), (60, 62, 68), (100, 130, 160), (38, 36, 40), (140, 110, 90)]
SHOES = [(40, 36, 34), (225, 225, 225), (50, 60, 110), (60, 40, 160)]


@dataclass(frozen=True)
class Figure:
    """One person's proportions, in shares of the body height, and looks; colours are BGR."""

    shin: float = 0.236
    thigh: float = 0.228
    trunk: float = 0.298  # hips to shoulders
    head: float = 1.0  # relative size
    upper_arm: float = 0.165
    forearm: float = 0.145
    shoulder_width: float = 0.205
    hip_width: float = 0.12
    girth: float = 1.0  # thickness of limbs and trunk, relative
    skin: Colour = SKINS[1]
    hair: Colour = HAIRS[1]
    shirt: Colour = CLOTHES[1]
    trousers: Colour = TROUSERS[2]
    shoes: Colour = SHOES[0]
    long_sleeves: bool = False
    shorts: bool = False
    long_hair: bool = False

    @classmethod
    def random(cls, rng: np.random.Generator) -> Figure:
        """Somebody, drawn with a seeded generator."""

        def colour(palette: list[Colour]) -> Colour:
            b, g, r = np.clip(palette[rng.integers(len(palette))] + rng.integers(-14, 15, 3), 0, 255).tolist()
            return b, g, r

        vary = rng.uniform(0.95, 1.05, 7)
        return cls(
            shin=0.236 * vary[0],
            thigh=0.228 * vary[1],
            trunk=0.298 * vary[2],
            head=rng.uniform(0.94, 1.1),
            upper_arm=0.165 * vary[3],
            forearm=0.145 * vary[4],
            shoulder_width=0.205 * vary[5],
            hip_width=0.12 * vary[6],
            girth=rng.uniform(0.88, 1.2),
            skin=colour(SKINS),
            hair=colour(HAIRS),
            shirt=colour(CLOTHES),
            trousers=colour(TROUSERS),
            shoes=colour(SHOES),
            long_sleeves=bool(rng.random() < 0.4),
            shorts=bool(rng.random() < 0.25),
            long_hair=bool(rng.random() < 0.4),
        )


def rotation(axis: str, degrees: float) -> np.ndarray:
    """(3, 3) rotation about a body axis: x tips forward, y turns left, z leans right."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array(
        {
            "x": [[1, 0, 0], [0, c, -s], [0, s, c]],
            "y": [[c, 0, s], [0, 1, 0], [-s, 0, c]],
            "z": [[c, -s, 0], [s, c, 0], [0, 0, 1]],
        }[axis]
    )


def bone(side: int, forward: float, out: float) -> np.ndarray:
    """Unit direction (3,) of a limb's bone; side is 1 on the left, -1 on the right."""
    f, o = math.radians(forward), math.radians(out)
    return np.array([side * math.sin(o), -math.cos(o) * math.cos(f), math.cos(o) * math.sin(f)])


@dataclass(frozen=True)
class Body:
    """A posed figure seen by the camera: x to the picture's right, y up, z towards the camera.

    Lengths are body heights from the place on the ground where the person started.
    """

    figure: Figure
    joint: np.ndarray  # (17, 3)
    toe: np.ndarray  # (2, 3) unit directions of the left and the right foot
    trunk: np.ndarray  # (3, 3) axes of the chest, in columns: left, up, forward
    head: np.ndarray  # (3, 3) axes of the head, likewise
    skull: np.ndarray  # (3,) middle of the head
    root: np.ndarray  # (3,) place on the ground


def pose_body(figure: Figure, pose: Pose, yaw: float = 0.0, pitch: float = 4.0) -> Body:
    """Forward kinematics.

    Args:
        figure: the person.
        pose: the joint angles.
        yaw: direction the person faces, degrees; see the module's docstring.
        pitch: how far the camera looks down, degrees.
    """
    joint = np.zeros((len(JOINTS), 3))
    trunk = rotation("z", -pose.sway) @ rotation("x", pose.lean) @ rotation("y", pose.twist)
    head = trunk @ rotation("y", pose.look) @ rotation("x", pose.nod)
    collar = trunk[:, 1] * figure.trunk
    skull = collar + 0.05 * trunk[:, 1] + 0.065 * figure.head * head[:, 1] + 0.012 * head[:, 2]
    toe = np.zeros((2, 3))

    def put(name: str, point: np.ndarray) -> np.ndarray:
        joint[JOINT[name]] = point
        return point

    put("nose", skull + head @ (0, -0.012, 0.074) * figure.head)
    for row, side, name in ((0, 1, "left"), (1, -1, "right")):
        arm, leg = (pose.left_arm, pose.left_leg) if side == 1 else (pose.right_arm, pose.right_leg)
        put(f"{name}_eye", skull + head @ (side * 0.025, 0.01, 0.058) * figure.head)
        put(f"{name}_ear", skull + head @ (side * 0.058, -0.004, 0.0) * figure.head)
        shoulder = put(f"{name}_shoulder", collar + trunk[:, 0] * side * figure.shoulder_width / 2)
        elbow = put(f"{name}_elbow", shoulder + figure.upper_arm * bone(side, arm.forward, arm.out))
        put(f"{name}_wrist", elbow + figure.forearm * bone(side, arm.lower_forward, arm.lower_out))
        hip = put(f"{name}_hip", np.array([side * figure.hip_width / 2, 0.0, 0.0]))
        knee = put(f"{name}_knee", hip + figure.thigh * bone(side, leg.forward, leg.out))
        put(f"{name}_ankle", knee + figure.shin * bone(side, leg.lower_forward, leg.lower_out))
        stretch = 65 * max(0.0, math.sin(math.radians(pose.tilt)))
        toe[row] = bone(side, leg.lower_forward + 90 - stretch, 12)

    # Tilt and turn the whole body, put its lowest point on the ground and its anchor at its place.
    turn = rotation("y", yaw + pose.turn)
    whole = turn @ rotation("z", -pose.roll) @ rotation("x", pose.tilt)
    joint, toe, skull = joint @ whole.T, toe @ whole.T, whole @ skull
    root = rotation("y", yaw) @ (0, 0, pose.travel)
    shift = root - joint[list(pose.anchor)].mean(0)
    shift[1] = pose.lift - (joint[:, 1] - CLEARANCE).min()
    joint, skull = joint + shift, skull + shift

    # A foot on the ground lies flat.
    flat = np.clip(1 - (joint[list(ANKLES), 1:2] - 0.045) / 0.06, 0, 1) * max(0.0, whole[1, 1]) ** 4
    toe = (1 - flat) * toe + flat * [turn @ bone(side, 90, 12) for side in (1, -1)]

    camera = rotation("x", pitch)
    return Body(
        figure,
        joint=joint @ camera.T,
        toe=toe @ camera.T,
        trunk=camera @ whole @ trunk,
        head=camera @ whole @ head,
        skull=camera @ skull,
        root=camera @ root,
    )


# --------------------------------------------------------------------------------------------------- drawing


class Blob(NamedTuple):
    """The convex hull of discs: a limb, a trunk, a head."""

    centre: np.ndarray  # (K, 3)
    radius: Sequence[float]  # (K,)
    colour: Colour


class Part(NamedTuple):
    """Blobs with one common outline, drawn after all parts of smaller depth."""

    depth: float
    blobs: list[Blob]
    light: float = 1.0


def light_on(body: Body, side: str) -> float:
    """Arms and legs on the far side of somebody seen from the side are darker."""
    other = {"left": "right", "right": "left"}[side]
    here, there = (body.joint[JOINT[f"{name}_shoulder"], 2] for name in (side, other))
    return 0.82 if here < there - 0.1 else 1.0


def arm_part(body: Body, side: str) -> Part:
    figure, g = body.figure, body.figure.girth
    shoulder, elbow, wrist = (body.joint[JOINT[f"{side}_{j}"]] for j in ("shoulder", "elbow", "wrist"))
    fingers = wrist + (wrist - elbow) / figure.forearm * 0.055
    cuff = shoulder + 0.62 * (elbow - shoulder)
    forearm = figure.shirt if figure.long_sleeves else figure.skin
    blobs = [
        Blob(np.stack([wrist, wrist * 0.5 + fingers * 0.5, fingers]), (0.016, 0.021, 0.013), figure.skin),
        Blob(np.stack([elbow, wrist]), (0.026 * g, 0.018 * g), forearm),
        Blob(np.stack([shoulder, elbow]), (0.034 * g, 0.026 * g), forearm),
        Blob(np.stack([shoulder, cuff]), (0.037 * g, 0.033 * g), figure.shirt),
    ]
    return Part((elbow[2] + wrist[2]) / 2 + 0.06, blobs, light_on(body, side))


def leg_part(body: Body, side: str) -> Part:
    figure, g = body.figure, body.figure.girth
    hip, knee, ankle = (body.joint[JOINT[f"{side}_{j}"]] for j in ("hip", "knee", "ankle"))
    toe = body.toe[0 if side == "left" else 1]
    sole = ankle + (ankle - knee) / figure.shin * 0.02
    hem = knee + 0.1 * (hip - knee)
    shin = figure.skin if figure.shorts else figure.trousers
    blobs = [
        Blob(np.stack([sole - 0.02 * toe, sole + 0.09 * toe, ankle]), (0.026, 0.02, 0.02), figure.shoes),
        Blob(np.stack([knee, ankle]), (0.036 * g, 0.024 * g), shin),
        Blob(np.stack([hip, knee]), (0.054 * g, 0.037 * g), shin),
        Blob(np.stack([hip, hem]), (0.058 * g, 0.043 * g), figure.trousers),
    ]
    return Part((knee[2] + ankle[2]) / 2 - 0.06, blobs, light_on(body, side))


def trunk_part(body: Body) -> Part:
    figure, g = body.figure, body.figure.girth
    shoulders = body.joint[[JOINT["left_shoulder"], JOINT["right_shoulder"]]]
    hips = body.joint[list(HIPS)]
    collar, pelvis = shoulders.mean(0), hips.mean(0)
    spine = collar - pelvis
    chest, waist = collar - 0.3 * spine, pelvis + 0.4 * spine
    neckline = collar + 0.02 * body.trunk[:, 1]
    shirt = np.stack([*shoulders, neckline, chest, waist, *(hips + 0.22 * spine)])
    seat = pelvis + body.trunk @ (0, -0.02, -0.022)
    blobs = [
        Blob(np.stack([*hips, *(hips + 0.15 * spine), seat]), [0.056 * g] * 5, figure.trousers),
        Blob(shirt, [r * g for r in (0.034, 0.034, 0.03, 0.076, 0.07, 0.055, 0.055)], figure.shirt),
    ]
    return Part((collar[2] + pelvis[2]) / 2 + 0.05, blobs)


def head_part(body: Body) -> Part:
    figure, size = body.figure, body.figure.head
    collar = body.joint[[JOINT["left_shoulder"], JOINT["right_shoulder"]]].mean(0)

    def at(left: float, up: float, forward: float) -> np.ndarray:
        return body.skull + body.head @ (left * size, up * size, forward * size)

    def blob(colour: Colour, *discs: tuple[float, float, float, float]) -> Blob:
        return Blob(np.stack([at(*disc[:3]) for disc in discs]), [disc[3] * size for disc in discs], colour)

    def faces_camera(left: float, forward: float) -> bool:
        return float(body.head[2] @ (left, 0, forward)) > 0.12

    dark = shade(figure.skin, 0.72)
    nape = collar + 0.01 * body.trunk[:, 1]
    neck = Blob(np.stack([nape, at(0, -0.03, -0.008)]), (0.032, 0.03), figure.skin)
    hair = [blob(figure.hair, (0, 0.026, -0.012, 0.066), (0, 0.01, -0.02, 0.064))]
    if figure.long_hair:
        curls = [(side * 0.04, -0.09, -0.025, 0.03) for side in (1, -1)]
        hair.append(blob(figure.hair, (0, 0.01, -0.02, 0.068), *curls))
    face = [blob(figure.skin, (0, 0.014, 0.002, 0.06), (0, -0.038, 0.016, 0.036))]
    for side in (1, -1):
        if body.head[2] @ (side, 0, 0) > -0.5:
            face.append(blob(figure.skin, (side * 0.058, -0.002, 0, 0.011), (side * 0.057, -0.012, 0, 0.008)))
            face.append(blob(dark, (side * 0.06, -0.004, 0.001, 0.005)))
        if faces_camera(side * 0.5, 0.85):
            face.append(blob((245, 245, 245), (side * 0.025, 0.01, 0.055, 0.0105)))
            face.append(blob((40, 30, 25), (side * 0.025, 0.01, 0.058, 0.0062)))
            brow = [(side * 0.014, 0.029, 0.056, 0.003), (side * 0.036, 0.028, 0.05, 0.003)]
            face.append(blob(figure.hair, *brow))
    if body.head[2, 2] > -0.2:
        face.append(blob(dark, (0, 0.004, 0.056, 0.004), (0, -0.012, 0.069, 0.0075)))
    if body.head[2, 2] > 0.1:
        left, right = ((side * 0.016, -0.036, 0.046, 0.004) for side in (1, -1))
        face.append(blob((70, 70, 150), left, (0, -0.04, 0.054, 0.0045), right))
    facing = body.head[2, 2] > -0.1
    # Seen from behind, the collar covers the neck.
    return (
        Part(body.skull[2] + 0.06, [*hair, neck, *face]) if facing else Part(body.skull[2] + 0.04, [neck, *face, *hair])
    )


def shade(colour: Colour, factor: float) -> Colour:
    """The colour made darker by a factor below 1, or lighter."""
    b, g, r = (min(255, int(channel * factor)) for channel in colour)
    return b, g, r


CIRCLE = np.stack([f(np.linspace(0, 2 * np.pi, 24, endpoint=False)) for f in (np.cos, np.sin)], axis=1)
SUBPIXEL_BITS = 4
# A blob is filled three times, smaller, lighter and further to the upper left each time. Roundness matters: a
# real YOLO finds people who crouch or lie in 80 to 95 % of frames with it, in 45 to 60 % with flat colours.
LAYERS = ((1.0, 0.88), (0.8, 1.0), (0.5, 1.12))
OUTLINE = 0.6


def draw_body(
    image: np.ndarray, body: Body, origin: tuple[float, float], scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """Draws a body into the picture.

    Args:
        image: (H, W, 3) uint8, drawn into.
        body: the posed figure.
        origin: px in the picture of the body's place on the ground.
        scale: px of a body height.

    Returns:
        keypoint (17, 2) px and bbox (4,) xyxy px of all that was drawn; neither is clipped to the picture.
    """

    def pixels(points: np.ndarray) -> np.ndarray:
        return np.array(origin) + points[:, :2] * (scale, -scale)

    def hull(blob: Blob, size: float = 1.0) -> np.ndarray:
        radius = scale * np.array(blob.radius)[:, None]
        centre = pixels(blob.centre) - 0.6 * (1 - size) * radius
        discs = centre[:, None] + (size * radius)[..., None] * CIRCLE
        return cv2.convexHull((discs.reshape(-1, 2) * 2**SUBPIXEL_BITS).round().astype(np.int32))

    parts = [trunk_part(body), head_part(body)]
    parts += [part(body, side) for part in (arm_part, leg_part) for side in ("left", "right")]
    thickness = max(1, round(scale * 0.006))
    drawn = []
    for part in sorted(parts, key=lambda part: part.depth):
        hulls = [hull(blob) for blob in part.blobs]
        drawn += hulls
        for blob, edge in zip(part.blobs, hulls, strict=True):
            colour = shade(blob.colour, OUTLINE)
            cv2.polylines(image, [edge], True, colour, thickness, cv2.LINE_AA, SUBPIXEL_BITS)
        for blob, edge in zip(part.blobs, hulls, strict=True):
            is_detail = max(blob.radius) < 0.012  # of the face
            for size, tone in [(1.0, 1.0)] if is_detail else LAYERS:
                inner = edge if size == 1 else hull(blob, size)
                colour = shade(blob.colour, tone * part.light)
                cv2.fillConvexPoly(image, inner, colour, cv2.LINE_AA, SUBPIXEL_BITS)
    outer = np.concatenate(drawn)[:, 0] / 2**SUBPIXEL_BITS
    return pixels(body.joint), np.concatenate([outer.min(0), outer.max(0)])


# ---------------------------------------------------------------------------------------------------- scenes


def plain(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    return np.full((height, width, 3), rng.integers(120, 235, 3), np.uint8)


def gradient(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    top, bottom = rng.integers(60, 245, (2, 1, 3))
    weight = np.linspace(0, 1, height)[:, None]
    column = ((1 - weight) * top + weight * bottom).astype(np.uint8)
    return np.repeat(column[:, None], width, axis=1)


def noise(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Cloudy colours."""
    cells = rng.integers(90, 190, 3) + rng.normal(0, 22, (9, 16, 3))
    clouds = cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC) + rng.normal(0, 4, (height, width, 1))
    return np.clip(clouds, 0, 255).astype(np.uint8)


def room(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """A wall with a window, a picture and a cupboard, and a floor."""
    image = plain(rng, width, height)
    floor = int(height * rng.uniform(0.62, 0.74))
    image[floor:] = shade((110, 140, 170), rng.uniform(0.6, 1.1))
    image[floor - max(2, height // 60) : floor] = (225, 225, 225)

    def box(x: float, y: float, w: float, h: float, colour: Colour, frame: Colour) -> None:
        corner, opposite = (int(x * width), int(y * height)), (int((x + w) * width), int((y + h) * height))
        cv2.rectangle(image, corner, opposite, colour, -1)
        cv2.rectangle(image, corner, opposite, frame, max(2, height // 90))

    x = rng.uniform(0.03, 0.2)
    box(x, 0.08, 0.22, 0.34, (235, 215, 180), (245, 245, 245))
    box(x, 0.08, 0.11, 0.34, (240, 222, 190), (245, 245, 245))
    box(rng.uniform(0.4, 0.6), 0.12, 0.14, 0.18, (90, 150, 120), (60, 80, 110))
    box(rng.uniform(0.74, 0.84), 0.35, 0.14, floor / height - 0.33, (70, 100, 140), (50, 70, 100))
    return image


def street(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Houses with windows under a sky, a pavement and a road."""
    image = plain(rng, width, height)
    image[:] = (235, 205, 170)
    ground = int(height * rng.uniform(0.58, 0.68))
    x = 0
    while x < width:
        w, top = int(width * rng.uniform(0.14, 0.26)), int(height * rng.uniform(0.05, 0.25))
        colour = rng.integers(100, 210, 3).tolist()
        cv2.rectangle(image, (x, top), (x + w, ground), colour, -1)
        step = max(8, w // 3)
        for wx in range(x + step // 3, x + w - step // 2, step):
            for wy in range(top + step // 3, ground - step, step):
                pane = (wx + step // 2, wy + int(step * 0.6))
                cv2.rectangle(image, (wx, wy), pane, [int(c * 0.55) for c in colour], -1)
        x += w
    image[ground:] = (150, 152, 155)
    image[int(height * 0.86) :] = (95, 95, 98)
    return image


BACKGROUNDS: dict[str, Callable[[np.random.Generator, int, int], np.ndarray]] = {
    "plain": plain,
    "gradient": gradient,
    "room": room,
    "street": street,
    "noise": noise,
}


@dataclass(frozen=True)
class Person:
    """Somebody in a scene.

    Attributes:
        motion: what the person does, a function of seconds.
        x: start, as a share of the picture's width.
        y: ground under the person, as a share of the picture's height.
        shift: added to x, in body heights (so that two people's hands meet in a picture of any shape).
        height: body height, as a share of the picture's height.
        yaw: direction the person faces, degrees.
        offset_s: added to the scene's time.
        speed: factor on the person's time.
        vigour: factor on how far the pose departs from standing.
        mirror: exchanges left and right.
        figure: proportions and looks.
    """

    motion: Motion
    x: float = 0.5
    y: float = 0.93
    height: float = 0.75
    yaw: float = 0.0
    shift: float = 0.0
    offset_s: float = 0.0
    speed: float = 1.0
    vigour: float = 1.0
    mirror: bool = False
    figure: Figure = Figure()

    def pose(self, time_s: float) -> Pose:
        """The pose at a time of the scene."""
        pose = self.motion(self.offset_s + self.speed * time_s)
        if self.vigour != 1:
            kept = {name: getattr(pose, name) for name in ("travel", "turn", "tilt", "lift")}
            pose = replace(blend(STAND, pose, self.vigour), **kept)
        return pose.mirrored() if self.mirror else pose


@dataclass(frozen=True)
class Scene:
    """People, drawn in this order (the last is in front of all others), before a background.

    Attributes:
        people: N persons.
        background: a name in `BACKGROUNDS`.
        seed: of the background and the noise.
        noise: standard deviation of the camera's noise, grey levels.
        pitch: how far the camera looks down, degrees.
    """

    people: tuple[Person, ...] = ()
    background: str = "room"
    seed: int = 0
    noise: float = 0.0
    pitch: float = 4.0


CAMERA_DISTANCE = 7.0  # body heights; people who come nearer grow


def render(
    scene: Scene, num_frames: int, fps: float = 30.0, size: tuple[int, int] = (640, 360)
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Draws a scene frame by frame.

    Args:
        scene: what to draw; the same scene gives the same pictures.
        num_frames: T.
        fps: frames per second.
        size: width and height, px.

    Yields:
        frame (H, W, 3) BGR uint8, keypoint (N, 17, 2) px float32 and bbox (N, 4) xyxy px float32, in the
        order of `scene.people`. Those of hidden people are there too, and they may lie outside the picture.
    """
    width, height = size
    rng = np.random.default_rng(scene.seed)
    background = BACKGROUNDS[scene.background](rng, width, height)
    for index in range(num_frames):
        frame = background.copy()
        keypoint = np.zeros((len(scene.people), len(JOINTS), 2), np.float32)
        bbox = np.zeros((len(scene.people), 4), np.float32)
        for n, person in enumerate(scene.people):
            body = pose_body(person.figure, person.pose(index / fps), person.yaw, scene.pitch)
            near = CAMERA_DISTANCE / max(1.0, CAMERA_DISTANCE - body.root[2])
            scale = person.height * height
            origin = (person.x * width + person.shift * scale, person.y * height)
            keypoint[n], bbox[n] = draw_body(frame, body, origin, scale * near)
        if scene.noise:
            grain = rng.normal(0, scene.noise, frame.shape)
            frame = np.clip(frame + grain, 0, 255).astype(np.uint8)
        yield frame, keypoint, bbox


def scene_of(motion: str, people: int = 1, seed: int = 0, **changes: Any) -> Scene:
    """People side by side who all do `motion`, or one pair of them for a motion of two.

    Args:
        motion: a name in `MOTIONS` or `PAIR_MOTIONS`.
        people: how many; a motion of two always takes two.
        seed: of looks, background and offsets.
        **changes: fields of `Person` to set for everybody, such as `yaw=90`.
    """
    rng = np.random.default_rng(seed)
    background = str(rng.choice(list(BACKGROUNDS)))
    if motion in PAIR_MOTIONS:
        return Scene(pair(motion, rng, **changes), background, seed)
    view = MOTIONS[motion]
    persons = []
    for n in range(people):
        person = Person(view.motion, x=(n + view.x) / people, yaw=view.yaw, figure=Figure.random(rng))
        if people > 1:
            person = replace(person, height=0.55, speed=rng.uniform(0.85, 1.15))
        persons.append(replace(person, **changes))
    return Scene(tuple(persons), background, seed)


def pair(motion: str, rng: np.random.Generator, **changes: Any) -> tuple[Person, Person]:
    """Two people who face each other and do a motion of `PAIR_MOTIONS`."""
    first, second, distance = PAIR_MOTIONS[motion]
    left = Person(first, shift=-distance / 2, yaw=90, figure=Figure.random(rng))
    right = Person(second, shift=distance / 2, yaw=-90, figure=Figure.random(rng))
    return replace(left, **changes), replace(right, **changes)


def crossing(seed: int = 0) -> Scene:
    """Two people walk past each other in the middle after about 2 s; the second is in front."""
    rng = np.random.default_rng(seed)
    far = Person(walk, x=0.1, y=0.9, height=0.6, yaw=90, figure=Figure.random(rng))
    near = Person(walk, x=0.9, y=0.94, height=0.63, yaw=-90, figure=Figure.random(rng), offset_s=0.1)
    return Scene((far, near), "street", seed)


def leave_and_return(seed: int = 0) -> Scene:
    """One walks out on the right after about 2 s, is away for about 1.5 s and walks back, over and over."""
    rng = np.random.default_rng(seed)
    leaver = Person(walk_to_and_fro(2.1), x=0.5, height=0.65, yaw=90, figure=Figure.random(rng))
    return Scene((leaver,), "room", seed)


def stand_and_walk(seed: int = 0) -> Scene:
    """One stands in the middle while another walks past behind, from left to right."""
    rng = np.random.default_rng(seed)
    walker = Person(walk, x=0.08, y=0.88, height=0.6, yaw=90, figure=Figure.random(rng))
    stander = Person(MOTIONS["stand"].motion, x=0.55, y=0.95, height=0.68, figure=Figure.random(rng))
    return Scene((walker, stander), "street", seed)


def nobody(seed: int = 0) -> Scene:
    """An empty room."""
    return Scene((), "room", seed)


def ten_walkers(seed: int = 0) -> Scene:
    """Ten people walk to and fro across the picture, past each other, for as long as one likes."""
    rng = np.random.default_rng(seed)
    people = []
    for n, y in enumerate(np.linspace(0.66, 0.97, 10).tolist()):
        height = 0.62 * y
        to_right = n % 2 == 0
        people.append(
            Person(
                walk_to_and_fro(1.55 / height),
                x=0.06 if to_right else 0.94,
                y=y,
                height=height,
                yaw=90 if to_right else -90,
                offset_s=rng.uniform(0, 10),
                speed=rng.uniform(0.85, 1.15),
                figure=Figure.random(rng),
            )
        )
    return Scene(tuple(people), "street", seed)


STORIES: dict[str, Callable[[int], Scene]] = {
    "crossing": crossing,
    "leave_and_return": leave_and_return,
    "stand_and_walk": stand_and_walk,
    "nobody": nobody,
    "ten_walkers": ten_walkers,
}


def random_scene(seed: int, max_people: int = 4) -> Scene:
    """A varied scene, for training a pose model: anybody, anywhere, doing anything, seen from anywhere."""
    rng = np.random.default_rng(seed)
    people: list[Person] = []
    for _ in range(rng.integers(1, max_people + 1)):
        common: dict[str, Any] = {
            "x": rng.uniform(0.1, 0.9),
            "y": rng.uniform(0.75, 1.1),
            "height": rng.uniform(0.25, 1.0),
        }
        common |= {"speed": rng.uniform(0.8, 1.25), "vigour": rng.uniform(0.85, 1.15)}
        common |= {"mirror": bool(rng.random() < 0.5), "offset_s": rng.uniform(0, 3)}
        if rng.random() < 0.15:
            people += pair(str(rng.choice(list(PAIR_MOTIONS))), rng, **common)
        else:
            motion = MOTIONS[str(rng.choice(list(MOTIONS)))].motion
            people.append(Person(motion, yaw=rng.uniform(-180, 180), figure=Figure.random(rng), **common))
    people.sort(key=lambda person: person.y)
    background = str(rng.choice(list(BACKGROUNDS)))
    return Scene(tuple(people), background, seed, rng.choice((0.0, 4.0, 10.0)), rng.uniform(0, 25))


# ---------------------------------------------------------------------------------------------------- videos


def write_video(
    path: str | Path,
    frames: Iterable[np.ndarray],
    fps: float = 30.0,
    *,
    audio: str | None = None,
    rotation: int = 0,
    times_s: Sequence[float] | None = None,
    crf: int = 23,
) -> int:
    """Writes an H.264 video that browsers play.

    Args:
        path: .mp4 (or .mkv, .mov).
        frames: (H, W, 3) BGR uint8, upright as a player should show them. An odd width or height is kept by
            writing yuv444p in place of yuv420p.
        fps: frames per second; with `times_s` only the nominal rate.
        audio: None, "silent" or "tone" (440 Hz), an AAC track as long as the video.
        rotation: 0, 90, 180 or 270: stores the pictures turned by so many degrees clockwise, with the display
            matrix that turns them back, as telephones store portrait clips.
        times_s: one increasing timestamp for each frame, for a variable frame rate.
        crf: quality of x264; larger is smaller.

    Returns:
        The number of frames written.
    """
    if audio not in (None, "silent", "tone"):
        raise ValueError(f"audio must be None, 'silent' or 'tone', got {audio!r}")
    if rotation not in (0, 90, 180, 270):
        raise ValueError(f"rotation must be 0, 90, 180 or 270, got {rotation}")
    rate = Fraction(fps).limit_denominator(1001)
    tick = 1 / rate if times_s is None else Fraction(1, 90_000)
    count, end_s = 0, 0.0
    with av.open(str(path), "w") as container:
        stream = sound = None
        for frame in frames:
            frame = np.ascontiguousarray(np.rot90(frame, -rotation // 90))
            if stream is None:
                stream = container.add_stream("libx264", rate=rate, options={"crf": str(crf)})
                stream.height, stream.width = frame.shape[:2]
                stream.pix_fmt = "yuv444p" if stream.height % 2 or stream.width % 2 else "yuv420p"
                stream.thread_count = 1  # the same bytes on any machine
                stream.time_base = stream.codec_context.time_base = tick
                if rotation:
                    stream.set_display_rotation(rotation)
                if audio:
                    sound = container.add_stream("aac", rate=AUDIO_RATE, layout="mono")
            picture = av.VideoFrame.from_ndarray(frame, format="bgr24")
            time_s = count / rate if times_s is None else times_s[count]
            picture.time_base, picture.pts = tick, round(time_s / tick)
            container.mux(stream.encode(picture))
            count, end_s = count + 1, float(time_s + 1 / rate)
        if stream is None:
            raise ValueError(f"no frames to write to {path}")
        container.mux(stream.encode())
        if sound is not None:
            for samples in audio_frames(end_s, tone=audio == "tone"):
                container.mux(sound.encode(samples))
            container.mux(sound.encode())
    return count


AUDIO_RATE = 44_100


def audio_frames(length_s: float, tone: bool) -> Iterator[av.AudioFrame]:
    """Silence or a tone of 440 Hz, in pieces of 1024 samples."""
    for start in range(0, int(length_s * AUDIO_RATE), 1024):
        t = np.arange(start, start + 1024) / AUDIO_RATE
        wave_form = (0.2 * np.sin(2 * np.pi * 440 * t) if tone else 0 * t).astype(np.float32)
        samples = av.AudioFrame.from_ndarray(wave_form[None], format="fltp", layout="mono")
        samples.sample_rate, samples.pts, samples.time_base = AUDIO_RATE, start, Fraction(1, AUDIO_RATE)
        yield samples


Joints = list[tuple[np.ndarray, np.ndarray]]  # (keypoint, bbox) of each frame, as `render` gives them


def save_video(path: Path, scene: Scene, seconds: float, fps: float, size: tuple[int, int]) -> Joints:
    """Renders a scene into a video and gives the joints."""
    joints = []

    def frames() -> Iterator[np.ndarray]:
        for frame, keypoint, bbox in render(scene, round(seconds * fps), fps, size):
            joints.append((keypoint, bbox))
            yield frame

    write_video(path, frames(), fps)
    return joints


def save_joints(path: Path, joints: Joints, fps: float, size: tuple[int, int]) -> None:
    """Saves the joints of each frame as JSON."""
    frames = [
        {"time_s": n / fps, "keypoint": keypoint.round(2).tolist(), "bbox": bbox.round(2).tolist()}
        for n, (keypoint, bbox) in enumerate(joints)
    ]
    text = json.dumps({"fps": fps, "img_shape": [size[1], size[0]], "joints": JOINTS, "frames": frames})
    path.write_text(text)


def every_motion(seed: int = 0) -> dict[str, Scene]:
    """A scene of each motion, one different from the other."""
    return {name: scene_of(name, seed=seed + n) for n, name in enumerate([*MOTIONS, *PAIR_MOTIONS])}


def contact_sheet(
    scenes: dict[str, Scene], columns: int = 8, length_s: float = 2.4, size: tuple[int, int] = (320, 180)
) -> np.ndarray:
    """A picture with a row for each scene, `columns` moments over `length_s` seconds."""
    rows = []
    for name, scene in scenes.items():
        row = np.hstack([frame for frame, _, _ in render(scene, columns, columns / length_s, size)])
        cv2.putText(row, name, (6, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 4, cv2.LINE_AA)
        cv2.putText(row, name, (6, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 1, cv2.LINE_AA)
        rows.append(row)
    return np.vstack(rows)


# ----------------------------------------------------------------------------------------------- measurement


@dataclass(frozen=True)
class Agreement:
    """How a pose model sees drawn people.

    Attributes:
        detection: (P,) the score of each drawn person in each frame, 0 where not detected.
        error: (D, 17) distance of each detected joint from the drawn one, as a share of the body height; nan
            where the drawn joint is outside the picture.
    """

    detection: np.ndarray
    error: np.ndarray

    @property
    def detection_rate(self) -> float:
        return float((self.detection > 0).mean())

    @property
    def mean_score(self) -> float:
        return float(self.detection[self.detection > 0].mean())

    @property
    def mean_error(self) -> float:
        return float(np.nanmean(self.error))

    def __str__(self) -> str:
        return (
            f"{self.detection_rate:7.1%} detected of {self.detection.size:4d}, score {self.mean_score:.2f}, "
            f"joint error {self.mean_error:.2%} of the height"
        )


def box_overlap(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union (A, B) of boxes (A, 4) and (B, 4), xyxy."""
    corner = np.maximum(first[:, None, :2], second[:, :2])
    opposite = np.minimum(first[:, None, 2:], second[:, 2:])
    shared = np.clip(opposite - corner, 0, None).prod(-1)
    area = [(box[:, 2:] - box[:, :2]).prod(-1) for box in (first, second)]
    return shared / (area[0][:, None] + area[1] - shared)


# frame (H, W, 3) BGR -> keypoint (D, 17, 2) px, bbox (D, 4) xyxy px, bbox_score (D,)
PoseModel = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]


def load_pose_model(path: str | Path) -> PoseModel:
    """A YOLO pose model as a function of a frame."""
    os.environ |= {"YOLO_AUTOINSTALL": "false", "ULTRALYTICS_SAFE_LOAD": "1", "YOLO_OFFLINE": "true"}
    from ultralytics import YOLO

    model = YOLO(path, task="pose")

    def poses(frame: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        result = model.predict(frame, conf=0.25, verbose=False)[0].cpu().numpy()
        return result.keypoints.xy, result.boxes.xyxy, result.boxes.conf

    return poses


def measure(
    scene: Scene,
    poses: PoseModel,
    num_frames: int = 12,
    fps: float = 5.0,
    size: tuple[int, int] = (640, 360),
) -> Agreement:
    """Compares a pose model with the drawn joints; people less than half inside the picture do not count."""
    detection, error = [], []
    for frame, keypoint, bbox in render(scene, num_frames, fps, size):
        found, found_bbox, found_score = poses(frame)
        inside = np.all((keypoint >= 0) & (keypoint < np.array(size)), axis=-1)
        overlap = box_overlap(np.clip(bbox, 0, [*size, *size]), found_bbox)
        for n in np.flatnonzero(inside.mean(1) > 0.5):
            best = int(overlap[n].argmax()) if len(found) else -1
            if best < 0 or overlap[n, best] < 0.5:
                detection.append(0.0)
                continue
            detection.append(float(found_score[best]))
            distance = np.linalg.norm(found[best] - keypoint[n], axis=-1)
            share = distance / (scene.people[n].height * size[1])
            error.append(np.where(inside[n] & found[best].any(-1), share, np.nan))
    return Agreement(np.array(detection), np.array(error).reshape(-1, len(JOINTS)))


def print_agreement(path: str | Path, scenes: dict[str, Scene], size: tuple[int, int]) -> None:
    """Prints the agreement for each scene, for all together and for each joint."""
    poses = load_pose_model(path)
    rows = {name: measure(scene, poses, size=size) for name, scene in scenes.items()}
    for name, row in rows.items():
        print(f"{name:18s}{row}")
    total = Agreement(
        np.concatenate([row.detection for row in rows.values()]),
        np.concatenate([row.error for row in rows.values()]),
    )
    print(f"{'all':18s}{total}")
    for name, share in zip(JOINTS, np.nanmean(total.error, axis=0), strict=True):
        print(f"  {name:16s}{share:.2%}")


# --------------------------------------------------------------------------------------------------- command


SAMPLES = {
    "wave.mp4": Scene((Person(wave, figure=Figure(shirt=CLOTHES[0])),), "room", seed=3),
    "walk.mp4": Scene((Person(walk, x=0.1, yaw=90, figure=Figure(long_hair=True)),), "street", seed=4),
    "handshake.mp4": Scene(pair("shake_hands", np.random.default_rng(5)), "room", seed=5),
}


def main() -> None:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--motion", choices=[*MOTIONS, *PAIR_MOTIONS])
    what.add_argument("--story", choices=list(STORIES))
    parser.add_argument("--out", type=Path, help="video to write")
    parser.add_argument("--joints", type=Path, help="JSON to write with the joints of each frame")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--people", type=int, default=1)
    parser.add_argument("--size", default="640x360", help="WIDTHxHEIGHT in px")
    parser.add_argument("--fps", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--contact-sheet", type=Path, metavar="PNG", help="draw all motions into one picture")
    parser.add_argument("--samples", type=Path, metavar="FOLDER", help="write the sample videos")
    parser.add_argument("--pose-model", type=Path, help="measure how a YOLO pose model sees the drawn people")
    args = parser.parse_args()
    width, height = (int(n) for n in args.size.split("x"))

    if args.motion:
        scenes = {args.motion: scene_of(args.motion, args.people, args.seed)}
    elif args.story:
        scenes = {args.story: STORIES[args.story](args.seed)}
    else:
        scenes = every_motion(args.seed)
    if args.contact_sheet:
        stories = {name: story(args.seed) for name, story in STORIES.items()}
        cv2.imwrite(str(args.contact_sheet), contact_sheet(every_motion(args.seed) | stories))
    if args.samples:
        args.samples.mkdir(parents=True, exist_ok=True)
        for name, scene in SAMPLES.items():
            save_video(args.samples / name, scene, seconds=3, fps=30, size=(640, 360))
    if args.out:
        if len(scenes) != 1:
            parser.error("--out needs --motion or --story")
        (scene,) = scenes.values()
        joints = save_video(args.out, scene, args.seconds, args.fps, (width, height))
        if args.joints:
            save_joints(args.joints, joints, args.fps, (width, height))
    if args.pose_model:
        print_agreement(args.pose_model, scenes, (width, height))


if __name__ == "__main__":
    main()
