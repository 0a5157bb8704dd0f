"""Joint layouts: names, edges, bone parents, left/right pairs and the graph, each written once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from skelact.errors import SkelactError
from skelact.files import read_text

Array = npt.NDArray[Any]


MAX_JOINTS = 1000  # twice those of a body with hands and a mesh of the face


@dataclass(frozen=True)
class Layout:
    """A skeleton of V joints.

    Attributes:
        name: how datasets and checkpoints call it.
        joints: V names.
        edges: the graph, as (child, parent) pairs that point inward.
        center: the joint that the body hangs from.
        bone_parents: V joint indices; a bone is a joint minus its parent. They are not always the edges:
            coco's hip hangs from the nose as a bone and from the shoulder as an edge. The edges by default.
        flip_pairs: (left, right) joints that change places in a mirrored picture.
    """

    name: str
    joints: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]
    center: int
    bone_parents: tuple[int, ...] = ()
    flip_pairs: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        num_joints = len(self.joints)
        if num_joints > MAX_JOINTS:  # its graph has their square
            raise SkelactError(f"layout {self.name!r}: expected {MAX_JOINTS} joints at most, found {num_joints}")
        if not self.bone_parents:
            parents = dict(self.edges)
            object.__setattr__(self, "bone_parents", tuple(parents.get(v, v) for v in range(num_joints)))
        if len(self.bone_parents) != num_joints:
            raise SkelactError(
                f"layout {self.name!r}: expected {num_joints} bone parents, one a joint, found {len(self.bone_parents)}"
            )
        twice = sorted({joint for joint in self.joints if self.joints.count(joint) > 1})
        loops = [self.joints[child] for child, parent in self.edges if child == parent and 0 <= child < num_joints]
        if twice or loops:
            raise SkelactError(
                f"layout {self.name!r}: expected joints of different names and edges between two of them, found "
                + (f"{', '.join(twice)} more than once" if twice else f"an edge from {loops[0]} to itself")
            )
        used = [
            self.center,
            *self.bone_parents,
            *(v for pair in (*self.edges, *self.flip_pairs) for v in pair),
        ]
        wrong = sorted({v for v in used if not 0 <= v < num_joints})
        if wrong or not num_joints:
            raise SkelactError(
                f"layout {self.name!r}: expected joint indices in 0..{num_joints - 1} for its {num_joints} joints, "
                f"found {wrong}"
            )

    @property
    def num_joints(self) -> int:
        """V."""
        return len(self.joints)

    def adjacency(self) -> Array:
        """The ``spatial`` partition (3, V, V) float32: identity, inward, outward, each normalised by columns.

        For an edge (i, j) the inward matrix has A[j, i] = 1; every column is divided by its sum
        (ST-GCN, arXiv 1801.07455, as PYSKL implements it).
        """
        num_joints = self.num_joints
        inward = np.zeros((num_joints, num_joints), np.float32)
        for child, parent in self.edges:
            inward[parent, child] = 1
        graph = np.stack([np.eye(num_joints, dtype=np.float32), inward, inward.T])
        column_sums = graph.sum(1, keepdims=True)
        return np.divide(graph, column_sums, out=np.zeros_like(graph), where=column_sums > 0)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; ``Layout.from_dict`` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Layout:
        """Build a layout from JSON types.

        Args:
            values: ``joints`` (names), ``edges`` ([child, parent] pairs), ``center`` (index or name) and, optional,
                ``name``, ``bone_parents`` and ``flip_pairs``, by default those whose names differ by left and right
                only. Joints may be given by name everywhere.

        Raises:
            SkelactError: a key is missing or a joint is unknown.
        """
        if not isinstance(values, Mapping) or not {"joints", "edges"} <= set(values):
            raise SkelactError('a layout needs {"joints": [names], "edges": [[child, parent], ...], "center": joint}')
        try:
            joints = tuple(str(joint) for joint in values["joints"])
            index = {joint: v for v, joint in enumerate(joints)}

            def joint_index(joint: int | str) -> int:
                return index[joint] if isinstance(joint, str) else int(joint)

            def pairs(key: str) -> tuple[tuple[int, int], ...]:
                return tuple((joint_index(a), joint_index(b)) for a, b in values.get(key, ()))

            return cls(
                name=str(values.get("name", "custom")),
                joints=joints,
                edges=pairs("edges"),
                center=joint_index(values.get("center", 0)),
                bone_parents=tuple(joint_index(joint) for joint in values.get("bone_parents", ())),
                flip_pairs=pairs("flip_pairs") if "flip_pairs" in values else _named_pairs(joints),
            )
        except KeyError as error:
            raise SkelactError(f"layout: {error} is none of its joints {', '.join(joints)}") from None
        except (TypeError, ValueError, OverflowError) as error:
            raise SkelactError(
                f"layout: expected joints as names and edges as [child, parent] pairs, found {error}"
            ) from None


def _named_pairs(joints: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """(left, right) joints, by their names."""
    index = {joint.lower(): v for v, joint in enumerate(joints)}
    rights = ((v, joint.replace("left", "right")) for joint, v in index.items() if "left" in joint)
    return tuple((v, index[right]) for v, right in rights if right in index)


COCO = Layout(
    name="coco",
    joints=(
        *("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder"),
        *("left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip"),
        *("left_knee", "right_knee", "left_ankle", "right_ankle"),
    ),
    edges=(
        *((15, 13), (13, 11), (16, 14), (14, 12), (11, 5), (12, 6), (9, 7), (7, 5)),
        *((10, 8), (8, 6), (5, 0), (6, 0), (1, 0), (3, 1), (2, 0), (4, 2)),
    ),
    center=0,
    bone_parents=(0, 0, 0, 1, 2, 0, 0, 5, 6, 7, 8, 0, 0, 11, 12, 13, 14),
    flip_pairs=((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16)),
)

NTU = Layout(
    name="nturgb+d",
    joints=(
        *(
            "spine_base",
            "spine_middle",
            "neck",
            "head",
            "left_shoulder",
            "left_elbow",
            "left_wrist",
            "left_hand",
        ),
        *(
            "right_shoulder",
            "right_elbow",
            "right_wrist",
            "right_hand",
            "left_hip",
            "left_knee",
            "left_ankle",
        ),
        *("left_foot", "right_hip", "right_knee", "right_ankle", "right_foot", "spine_shoulder"),
        *("left_hand_tip", "left_thumb", "right_hand_tip", "right_thumb"),
    ),
    edges=(
        *(
            (0, 1),
            (1, 20),
            (2, 20),
            (3, 2),
            (4, 20),
            (5, 4),
            (6, 5),
            (7, 6),
            (8, 20),
            (9, 8),
            (10, 9),
            (11, 10),
        ),
        *((12, 0), (13, 12), (14, 13), (15, 14), (16, 0), (17, 16), (18, 17), (19, 18)),
        *((21, 7), (22, 7), (23, 11), (24, 11)),
    ),
    center=20,
    bone_parents=(
        *(1, 20, 20, 2, 20, 4, 5, 6, 20, 8, 9, 10, 0, 12, 13, 14, 0, 16, 17, 18, 20),
        *(22, 7, 24, 11),
    ),
    flip_pairs=(
        *((4, 8), (5, 9), (6, 10), (7, 11), (12, 16), (13, 17), (14, 18), (15, 19)),
        *((21, 23), (22, 24)),
    ),
)

OPENPOSE = Layout(
    name="openpose",
    joints=(
        *(
            "nose",
            "neck",
            "right_shoulder",
            "right_elbow",
            "right_wrist",
            "left_shoulder",
            "left_elbow",
            "left_wrist",
        ),
        *("right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle"),
        *("right_eye", "left_eye", "right_ear", "left_ear"),
    ),
    edges=(
        *((4, 3), (3, 2), (7, 6), (6, 5), (13, 12), (12, 11), (10, 9), (9, 8), (11, 5), (8, 2)),
        *((5, 1), (2, 1), (0, 1), (15, 0), (14, 0), (17, 15), (16, 14)),
    ),
    center=1,
    bone_parents=(0, 0, 1, 2, 3, 1, 5, 6, 2, 8, 9, 5, 11, 12, 0, 0, 14, 15),
    flip_pairs=((5, 2), (6, 3), (7, 4), (11, 8), (12, 9), (13, 10), (15, 14), (17, 16)),
)

HAND = Layout(
    name="hand",
    joints=(
        "wrist",
        *(f"{finger}_{n}" for finger in ("thumb", "index", "middle", "ring", "little") for n in (1, 2, 3, 4)),
    ),
    # Every finger is a chain of four joints that starts at the wrist.
    edges=tuple((v, 0 if v % 4 == 1 else v - 1) for v in range(1, 21)),
    center=0,
)

JHMDB = Layout(
    name="jhmdb",
    joints=(
        *("neck", "belly", "face", "right_shoulder", "left_shoulder", "right_hip", "left_hip"),
        *("right_elbow", "left_elbow", "right_knee", "left_knee", "right_wrist", "left_wrist"),
        *("right_ankle", "left_ankle"),
    ),
    edges=(
        *((0, 1), (2, 0), (3, 0), (4, 0), (5, 1), (6, 1), (7, 3), (8, 4)),
        *((9, 5), (10, 6), (11, 7), (12, 8), (13, 9), (14, 10)),
    ),
    center=1,
    flip_pairs=((4, 3), (6, 5), (8, 7), (10, 9), (12, 11), (14, 13)),
)

LAYOUTS = {layout.name: layout for layout in (COCO, NTU, OPENPOSE, HAND, JHMDB)}

# What stands for a joint that a layout lacks: the mean of these.
STAND_INS = {"neck": ("left_shoulder", "right_shoulder"), "nose": ("face",)}


def layout_of_joints(num_joints: int) -> Layout | None:
    """The built-in layout with so many joints, or None."""
    return next((layout for layout in LAYOUTS.values() if layout.num_joints == num_joints), None)


def load_layout(name_or_path: str | Path) -> Layout:
    """A built-in layout by name, or one from a JSON file (see ``Layout.from_dict``).

    Raises:
        SkelactError: it is neither, or the file holds no layout.
    """
    if str(name_or_path) in LAYOUTS:
        return LAYOUTS[str(name_or_path)]
    path = Path(name_or_path)
    if not path.is_file():
        raise SkelactError(f"layout {str(path)!r}: neither a file nor one of {', '.join(LAYOUTS)}")
    try:
        values = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise SkelactError(f"layout {path}: expected a JSON file, found {error}") from None
    try:
        return Layout.from_dict({"name": path.stem, **values} if isinstance(values, Mapping) else values)
    except SkelactError as error:
        raise SkelactError(f"{path}: {error}") from None


def as_layout(layout: Layout | str | Path | None) -> Layout | None:
    """A layout, which may be given by what ``load_layout`` takes."""
    return layout if layout is None or isinstance(layout, Layout) else load_layout(layout)


def convert_layout(
    keypoint: Array, keypoint_score: Array | None, source: Layout, target: Layout
) -> tuple[Array, Array]:
    """Give 2D poses the joints of another layout: those of the same name, or what stands for them.

    A neck is the mean of the shoulders with the lower of their scores, for it is known no better than the worse one;
    it is not known where a shoulder is not. JHMDB's face becomes the nose. Joints that nothing stands for are zero with
    score 0, and joints that the target lacks are dropped.

    Args:
        keypoint: (..., V, 2), V of the source.
        keypoint_score: (..., V) in [0, 1]; None takes every joint that is not zero as seen.
        source: the layout that the poses have.
        target: the layout that they get.

    Returns:
        Keypoints (..., V, 2) and scores (..., V) float32, V of the target.

    Raises:
        SkelactError: the keypoints are not 2D poses of the source, or the layouts have no joint in common.
    """
    if keypoint.shape[-2:] != (source.num_joints, 2):
        raise SkelactError(
            f"layout {source.name!r} to {target.name!r}: expected 2D keypoints (..., {source.num_joints}, 2), "
            f"found shape {keypoint.shape}"
        )
    score = np.any(keypoint != 0, axis=-1) if keypoint_score is None else keypoint_score
    index = {joint: v for v, joint in enumerate(source.joints)}
    new_keypoint = np.zeros((*keypoint.shape[:-2], target.num_joints, 2), np.float32)
    new_score = np.zeros(new_keypoint.shape[:-1], np.float32)
    found = False
    for v, joint in enumerate(target.joints):
        names = (joint,) if joint in index else STAND_INS.get(joint, ())
        joints = [index[name] for name in names if name in index]
        if not joints or len(joints) < len(names):
            continue
        found = True
        new_score[..., v] = score[..., joints].min(-1)
        new_keypoint[..., v, :] = keypoint[..., joints, :].mean(-2)
        if len(joints) > 1:
            new_keypoint[..., v, :] *= new_score[..., v, None] > 0
    if not found:
        raise SkelactError(f"layout {source.name!r} has no joint in common with {target.name!r}; choose another")
    return new_keypoint, new_score
