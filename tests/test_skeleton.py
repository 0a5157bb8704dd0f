"""Layouts: the published tables, the graph that follows from them, and layouts that users describe themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skelact.errors import SkelactError
from skelact.skeleton import COCO, HAND, LAYOUTS, NTU, OPENPOSE, Layout, layout_of_joints, load_layout

each_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)

# As the datasets' own tables have them: NTU counts from 1.
NTU_EDGES_FROM_1 = (
    "1-2 2-21 3-21 4-3 5-21 6-5 7-6 8-7 9-21 10-9 11-10 12-11 13-1 14-13 15-14 16-15 17-1 18-17 19-18 20-19 "
    "22-8 23-8 24-12 25-12"
)
NTU_BONES = (
    "0-1 1-20 2-20 3-2 4-20 5-4 6-5 7-6 8-20 9-8 10-9 11-10 12-0 13-12 14-13 15-14 16-0 17-16 18-17 19-18 "
    "21-22 20-20 22-7 23-24 24-11"
)
HAND_EDGES = "1-0 2-1 3-2 4-3 5-0 6-5 7-6 8-7 9-0 10-9 11-10 12-11 13-0 14-13 15-14 16-15 17-0 18-17 19-18 20-19"


def pairs(text: str, first: int = 0) -> set[tuple[int, int]]:
    numbers = (pair.split("-") for pair in text.split())
    return {(int(a) - first, int(b) - first) for a, b in numbers}


def test_published_sizes_and_centres() -> None:
    sizes = {"coco": (17, 0), "nturgb+d": (25, 20), "openpose": (18, 1), "hand": (21, 0)}
    assert {name: (LAYOUTS[name].num_joints, LAYOUTS[name].center) for name in sizes} == sizes


def test_published_edges() -> None:
    assert set(COCO.edges) == pairs("15-13 13-11 16-14 14-12 11-5 12-6 9-7 7-5 10-8 8-6 5-0 6-0 1-0 3-1 2-0 4-2")
    assert set(NTU.edges) == pairs(NTU_EDGES_FROM_1, first=1)
    assert set(OPENPOSE.edges) == pairs(
        "4-3 3-2 7-6 6-5 13-12 12-11 10-9 9-8 11-5 8-2 5-1 2-1 0-1 15-0 14-0 17-15 16-14"
    )
    assert set(HAND.edges) == pairs(HAND_EDGES)


def test_published_bone_parents() -> None:
    """They are not the edges: coco's hips hang from the nose, NTU's finger tips from the thumbs."""
    assert COCO.bone_parents == (0, 0, 0, 1, 2, 0, 0, 5, 6, 7, 8, 0, 0, 11, 12, 13, 14)
    assert OPENPOSE.bone_parents == (0, 0, 1, 2, 3, 1, 5, 6, 2, 8, 9, 5, 11, 12, 0, 0, 14, 15)
    assert set(enumerate(NTU.bone_parents)) == pairs(NTU_BONES)
    assert set(enumerate(HAND.bone_parents)) == {*pairs(HAND_EDGES), (0, 0)}


def test_left_and_right_are_known_by_their_names() -> None:
    """Else a mirrored clip would have its left joints on the right."""
    for known in (COCO, NTU, OPENPOSE):
        values = {key: value for key, value in known.to_dict().items() if key != "flip_pairs"}
        assert set(Layout.from_dict(values).flip_pairs) == set(known.flip_pairs), known.name
        assert Layout.from_dict({**values, "flip_pairs": []}).flip_pairs == ()
    assert Layout.from_dict({"joints": ["LeftHand", "root", "RightHand", "leftover"], "edges": []}).flip_pairs == (
        (0, 2),
    )


@each_layout
def test_every_joint_has_a_name_of_its_own_and_a_path_to_the_centre(layout: Layout) -> None:
    assert len(set(layout.joints)) == layout.num_joints
    reached = {layout.center}
    for _ in range(layout.num_joints):
        reached |= {v for edge in layout.edges if reached & set(edge) for v in edge}
    assert reached == set(range(layout.num_joints))


@each_layout
def test_mirrored_joints_are_namesakes_and_the_graph_is_its_own_mirror_image(layout: Layout) -> None:
    mirror = list(range(layout.num_joints))
    for left, right in layout.flip_pairs:
        assert layout.joints[left] == layout.joints[right].replace("right_", "left_")
        assert layout.joints[left].startswith("left_")
        mirror[left], mirror[right] = right, left
    sided = [v for v, joint in enumerate(layout.joints) if joint.startswith(("left_", "right_"))]
    assert sorted(v for pair in layout.flip_pairs for v in pair) == sided
    assert {(mirror[a], mirror[b]) for a, b in layout.edges} == set(layout.edges)


@each_layout
def test_the_graph_joint_by_joint(layout: Layout) -> None:
    identity, inward, outward = layout.adjacency()
    for column in range(layout.num_joints):
        children_of = [parent for child, parent in layout.edges if child == column]  # A[parent, child] = 1
        parents_of = [child for child, parent in layout.edges if parent == column]
        for row in range(layout.num_joints):
            assert identity[row, column] == (row == column)
            expected = 1 / len(children_of) if row in children_of else 0
            assert inward[row, column] == pytest.approx(expected)
            expected = 1 / len(parents_of) if row in parents_of else 0
            assert outward[row, column] == pytest.approx(expected)


@each_layout
def test_the_graphs_columns_sum_to_one_or_stay_empty(layout: Layout) -> None:
    graph = layout.adjacency()
    assert graph.shape == (3, layout.num_joints, layout.num_joints)
    assert graph.dtype == np.float32
    sums = graph.sum(1)
    assert np.all(np.isclose(sums, 1) | (sums == 0))
    assert np.isfinite(graph).all()


def test_layouts_are_found_by_their_number_of_joints() -> None:
    assert [layout_of_joints(n) for n in (17, 25, 18, 21, 2)] == [COCO, NTU, OPENPOSE, HAND, None]


# --- layouts of one's own ----------------------------------------------------------------------------------------


ARM: dict[str, Any] = {
    "joints": ["shoulder", "left_hand", "right_hand"],
    "edges": [["left_hand", "shoulder"], ["right_hand", "shoulder"]],
    "center": "shoulder",
    "flip_pairs": [["left_hand", "right_hand"]],
}


def written(folder: Path, values: Any) -> Path:
    path = folder / "arm.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


def test_a_layout_from_a_file_by_joint_names(tmp_path: Path) -> None:
    layout = load_layout(written(tmp_path, ARM))
    assert layout == Layout(
        name="arm",  # the file's
        joints=("shoulder", "left_hand", "right_hand"),
        edges=((1, 0), (2, 0)),
        center=0,
        bone_parents=(0, 0, 0),  # from the edges; the root is its own parent
        flip_pairs=((1, 2),),
    )
    by_index = {**ARM, "edges": [[1, 0], [2, 0]], "center": 0, "flip_pairs": [[1, 2]], "name": "arms"}
    assert load_layout(written(tmp_path, by_index)) == Layout(**{**layout.to_dict(), "name": "arms"})


def test_a_joint_on_no_edge_is_its_own_parent(tmp_path: Path) -> None:
    """A ball, a tool: it has no bone, rather than one that hangs from the middle of the body."""
    layout = load_layout(written(tmp_path, {**ARM, "joints": [*ARM["joints"], "ball"]}))
    assert layout.bone_parents == (0, 0, 0, 3)


def test_a_layout_says_which_bones_it_wants(tmp_path: Path) -> None:
    layout = load_layout(written(tmp_path, {**ARM, "bone_parents": ["shoulder", "shoulder", "left_hand"]}))
    assert layout.bone_parents == (0, 0, 1)


@each_layout
def test_a_layout_survives_json(layout: Layout) -> None:
    assert Layout.from_dict(json.loads(json.dumps(layout.to_dict()))) == layout


def test_a_layout_by_name() -> None:
    assert load_layout("coco") is COCO
    with pytest.raises(SkelactError, match=r"'kinect': neither a file nor one of coco, nturgb\+d"):
        load_layout("kinect")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, 2], 'a layout needs {"joints"'),
        (None, 'a layout needs {"joints"'),
        ({"edges": []}, 'a layout needs {"joints"'),
        ({"joints": ["a"]}, 'a layout needs {"joints"'),
        ({**ARM, "edges": [["foot", "shoulder"]]}, "'foot' is none of its joints shoulder, left_hand, right_hand"),
        ({**ARM, "center": "head"}, "'head' is none of its joints"),
        ({**ARM, "bone_parents": ["shoulder", "shoulder", "foot"]}, "'foot' is none of its joints"),
        ({**ARM, "flip_pairs": [["left_hand", "foot"]]}, "'foot' is none of its joints"),
        ({**ARM, "edges": [[0, 3]]}, "expected joint indices in 0..2 for its 3 joints, found [3]"),
        ({**ARM, "edges": [[-1, 0]]}, "found [-1]"),
        ({**ARM, "center": 9}, "found [9]"),
        ({**ARM, "joints": []}, "'left_hand' is none of its joints"),
        ({"joints": [], "edges": []}, "0 joints"),
        ({**ARM, "bone_parents": [0, 0]}, "expected 3 bone parents, one a joint, found 2"),
        ({**ARM, "edges": [[0, 1, 2]]}, "edges as [child, parent] pairs"),
        ({**ARM, "edges": [5]}, "edges as [child, parent] pairs"),
        ({**ARM, "edges": None}, "edges as [child, parent] pairs"),
        ({**ARM, "joints": 3}, "expected joints as names"),
    ],
)
def test_a_bad_layout_is_told_what_is_wrong(tmp_path: Path, values: Any, message: str) -> None:
    with pytest.raises(SkelactError) as error:
        load_layout(written(tmp_path, values))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000], ids=["empty", "cut", "binary", "deep"])
def test_a_layout_file_that_is_no_json(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(SkelactError, match=r"broken\.json: expected a JSON file, found"):
        load_layout(path)


def test_a_layout_of_more_joints_than_any_body_has_is_refused_at_once(tmp_path: Path) -> None:
    joints = [str(k) for k in range(100_000)]
    with pytest.raises(SkelactError, match="expected 1000 joints at most, found 100000"):
        load_layout(written(tmp_path, {"joints": joints, "edges": [], "center": "0"}))
