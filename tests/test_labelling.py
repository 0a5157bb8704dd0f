"""Where labels and splits come from: tables, NTU RGB+D names, folders; and fair splits where nothing tells."""

from __future__ import annotations

import math
import os
import sys
import unicodedata
from collections import Counter
from pathlib import Path

import pytest

from skelact import labelling
from skelact.errors import SkelactError
from skelact.labelling import find_clips, groups_of, label_clips, make_split


def videos(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"a video, as far as its name tells")
    return root


def named(label: dict[str, int], class_names: tuple[str, ...]) -> dict[str, str]:
    return {name: class_names[k] for name, k in label.items()}


def test_folders_name_the_classes(tmp_path: Path) -> None:
    clips = find_clips(
        [videos(tmp_path, "wave/a.mp4", "wave/b.AVI", "walk/a.mp4", "walk/.hidden.mp4", "walk/notes.txt")]
    )
    told = label_clips(clips)
    assert told.source == "folders"
    assert told.class_names == ("walk", "wave")
    assert named(dict(told.label), told.class_names) == {"walk/a": "walk", "wave/a": "wave", "wave/b": "wave"}
    assert not told.split


def test_folders_name_the_split_too(tmp_path: Path) -> None:
    told = label_clips(find_clips([videos(tmp_path, "train/wave/a.mp4", "train/walk/b.mp4", "val/wave/c.mp4")]))
    assert told.class_names == ("walk", "wave")
    assert told.split == {"train": ("train/walk/b", "train/wave/a"), "val": ("val/wave/c",)}


def test_a_stray_video_leaves_the_split_alone(tmp_path: Path) -> None:
    names = ("train/wave/a.mp4", "train/walk/b.mp4", "val/wave/c.mp4", "val/loose.mp4", "intro.mp4")
    told = label_clips(find_clips([videos(tmp_path, *names)]))
    assert told.class_names == ("walk", "wave")
    assert told.split == {"train": ("train/walk/b", "train/wave/a"), "val": ("val/wave/c",)}
    assert set(told.label) == {"train/walk/b", "train/wave/a", "val/wave/c"}


def test_what_is_found_twice_counts_once(tmp_path: Path) -> None:
    root = videos(tmp_path, "wave/a.mp4", "walk/b.mp4")
    assert [clip.name for clip in find_clips([root, root / "wave", root / "walk" / "b.mp4"])] == ["walk/b", "wave/a"]


def test_a_bare_file_name_is_that_of_one_video_only(tmp_path: Path) -> None:
    clips = find_clips([videos(tmp_path / "v", "x.mp4", "sub/x.mp4", "sub/y.mp4")])
    (tmp_path / "labels.csv").write_text("x.mp4,wave\ny.mp4,walk\n")
    told = label_clips(clips, tmp_path / "labels.csv")
    assert named(dict(told.label), told.class_names) == {"x": "wave", "sub/y": "walk"}


def test_a_class_called_train_beside_others_is_a_class(tmp_path: Path) -> None:
    told = label_clips(find_clips([videos(tmp_path, "train/a.mp4", "bus/b.mp4")]))
    assert told.class_names == ("bus", "train")
    assert not told.split


def test_a_folder_called_train_that_few_lie_in_is_no_split(tmp_path: Path) -> None:
    names = ("train/express/a.mp4", "bus/b.mp4", "bus/c.mp4", "car/d.mp4")
    told = label_clips(find_clips([videos(tmp_path, *names)]))
    assert told.class_names == ("bus", "car", "express")
    assert not told.split


def test_videos_in_no_folder_have_no_label(tmp_path: Path) -> None:
    told = label_clips(find_clips([videos(tmp_path, "a.mp4", "b.mp4")]))
    assert told.source == "none"
    assert not told.label


def test_ntu_names_tell_class_and_published_splits(tmp_path: Path) -> None:
    root = videos(
        tmp_path, "S001C001P001R001A001_rgb.avi", "S001C002P003R002A060_rgb.avi", "S001C003P008R001A010_rgb.avi"
    )
    clips = find_clips([root])
    told = label_clips(clips)
    assert [clip.name for clip in clips] == ["S001C001P001R001A001", "S001C002P003R002A060", "S001C003P008R001A010"]
    assert named(dict(told.label), told.class_names) == {
        "S001C001P001R001A001": "drink water",
        "S001C002P003R002A060": "walking apart from each other",
        "S001C003P008R001A010": "clapping",
    }
    assert len(told.class_names) == 60
    assert set(told.split["xsub_train"]) == {"S001C001P001R001A001", "S001C003P008R001A010"}
    assert set(told.split["xsub_val"]) == {"S001C002P003R002A060"}
    assert set(told.split["xview_train"]) == {"S001C002P003R002A060", "S001C003P008R001A010"}


def test_a_table_has_the_first_word(tmp_path: Path) -> None:
    clips = find_clips([videos(tmp_path / "v", "wave/a.mp4", "wave/b.mp4", "c.mp4", "d.mp4")])
    table = tmp_path / "labels.csv"
    table.write_text(
        "path,label,split\nwave/a.mp4,jump,train\nv/wave/b.mp4,sit,val\nc.mp4,jump,train\n", encoding="utf-8"
    )
    told = label_clips(clips, table)
    assert told.source == "table"
    assert named(dict(told.label), told.class_names) == {"wave/a": "jump", "wave/b": "sit", "c": "jump"}
    assert told.split == {"train": ("c", "wave/a"), "val": ("wave/b",)}


def test_a_table_with_the_slashes_of_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = find_clips([videos(tmp_path / "v", "wave/a.mp4", "wave/b.mp4", "walk/b.mp4")])
    table = tmp_path / "labels" / "labels.csv"
    table.parent.mkdir()
    table.write_text(f"wave\\a.mp4,jump\nwave\\b,sit\n{tmp_path}\\v\\walk\\b.mp4,jump\n", encoding="utf-8")
    monkeypatch.setattr(labelling, "Path", lambda *parts: Path(*(str(part).replace("\\", "/") for part in parts)))
    told = label_clips(clips, table)
    assert named(dict(told.label), told.class_names) == {"wave/a": "jump", "wave/b": "sit", "walk/b": "jump"}


def test_a_table_whose_accents_are_written_in_another_way(tmp_path: Path) -> None:
    clips = find_clips([videos(tmp_path / "v", f"{unicodedata.normalize('NFD', 'très/été')}.mp4")])
    (tmp_path / "labels.csv").write_text(f"{unicodedata.normalize('NFC', 'très/été')}.mp4,wave\n", encoding="utf-8")
    assert label_clips(clips, tmp_path / "labels.csv").class_names == ("wave",)


def test_a_table_as_excel_writes_it(tmp_path: Path) -> None:
    """With a byte order mark, Windows' line ends, and spaces that somebody typed."""
    clips = find_clips([videos(tmp_path / "v", "a.mp4", "größer.mp4")])
    text = "label,path\r\nwave, a.mp4\r\n\r\nwalk ,größer.mp4\r\n"
    (tmp_path / "labels.csv").write_bytes(text.encode("utf-8-sig"))
    told = label_clips(clips, tmp_path / "labels.csv")
    assert named(dict(told.label), told.class_names) == {"a": "wave", "größer": "walk"}


def test_a_table_with_numbers_keeps_them(tmp_path: Path) -> None:
    clips = find_clips([videos(tmp_path / "v", "a.mp4", "b.mp4")])
    (tmp_path / "labels.csv").write_text("a.mp4,3\nb.mp4,0\n")
    told = label_clips(clips, tmp_path / "labels.csv")
    assert dict(told.label) == {"a": 3, "b": 0}
    assert told.class_names == ("0", "1", "2", "3")


def test_a_table_for_clips_that_have_classes_already_keeps_their_numbers(tmp_path: Path) -> None:
    clips, table = find_clips([videos(tmp_path / "v", "a.mp4", "b.mp4")]), tmp_path / "labels.csv"
    known = ("walk", "sit", "fall")
    for text in ("a.mp4,fall\nb.mp4,sit\n", "a.mp4,2\nb.mp4,1\n"):
        table.write_text(text)
        told = label_clips(clips, table, known)
        assert (dict(told.label), told.class_names) == ({"a": 2, "b": 1}, known)
    table.write_text("a.mp4,wave\nb.mp4,sit\n")
    assert label_clips(clips, table, known).class_names == ("sit", "wave"), "other classes than those"
    table.write_text("a.mp4,3\nb.mp4,1\n")
    with pytest.raises(SkelactError, match="expected class names, or indices below 3, found 3"):
        label_clips(clips, table, known)


def test_a_table_tells_what_each_part_of_a_video_shows(tmp_path: Path) -> None:
    clips = find_clips([videos(tmp_path / "v", "monday.mp4", "tuesday.mp4", "sunday.mp4")])
    (tmp_path / "labels.csv").write_text(
        "path,start_s,stop_s,by,label,split\n"
        "monday.mp4,0,2.5,Ann,sit,train\nmonday.mp4,2.5,9,Ann,fall,train\ntuesday.mp4,,,Bob,sit,val\n"
    )
    told = label_clips(clips, tmp_path / "labels.csv")
    labels = {"monday_0-2.5": "sit", "monday_2.5-9": "fall", "tuesday": "sit"}
    assert named(dict(told.label), told.class_names) == labels
    assert told.split == {"train": ("monday_0-2.5", "monday_2.5-9"), "val": ("tuesday",)}
    parts = {clip.name: [(part.name, part.start_s, part.stop_s) for part in told.parts_of(clip)] for clip in clips}
    assert parts == {
        "monday": [("monday_0-2.5", 0, 2.5), ("monday_2.5-9", 2.5, 9)],
        "tuesday": [("tuesday", 0, math.inf)],
        "sunday": [("sunday", 0, math.inf)],
    }


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a.mp4,3,1,sit", "expected seconds, start_s before stop_s, found a.mp4, sit, 3, 1"),
        ("a.mp4,-1,1,sit", "expected seconds, start_s before stop_s"),
        ("a.mp4,0:30,0:40,sit", "expected seconds, start_s before stop_s, found a.mp4, sit, 0:30, 0:40"),
        ("a.mp4,1,2,sit\na.mp4,1,2,fall", "expected one row a path or part"),
        ("a.mp4,,,sit\na.mp4,1,2,fall", "expected times in all rows of a video or in none"),
        ("a.mp4,1,2", "expected rows of path, label.* and start_s, stop_s"),
    ],
)
def test_times_that_make_no_sense(tmp_path: Path, rows: str, message: str) -> None:
    clips = find_clips([videos(tmp_path / "v", "a.mp4")])
    (tmp_path / "labels.csv").write_text(f"path,start_s,stop_s,label\n{rows}\n")
    with pytest.raises(SkelactError, match=message):
        label_clips(clips, tmp_path / "labels.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label,label\na.mp4,sit,3\n", "found a first row of path, label, label"),
        ("", "expected rows of path, label"),
        ("a.mp4\n", "expected rows of path, label"),
        ("elsewhere.mp4,wave\n", "expected paths such as 'a', found none .* but 'elsewhere.mp4'"),
        ("a.mp4,\n", "found none .* but 'rows without a label'"),
        ("a\0.mp4,wave\n", "expected rows of path, label"),
        (f"a.mp4,{'9' * 5000}\n", "expected rows of path, label"),
    ],
)
def test_tables_that_do_not_fit(tmp_path: Path, text: str, message: str) -> None:
    clips = find_clips([videos(tmp_path / "v", "a.mp4")])
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(SkelactError, match=message):
        label_clips(clips, tmp_path / "labels.csv")
    with pytest.raises(SkelactError, match="cannot be read"):
        label_clips(clips, tmp_path / "missing.csv")


def test_a_number_among_names_is_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clips = find_clips([videos(tmp_path / "v", "a.mp4", "b.mp4")])
    (tmp_path / "labels.csv").write_text("a.mp4,fist\nb.mp4,1\n")
    told = label_clips(clips, tmp_path / "labels.csv")
    assert (told.class_names, dict(told.label)) == (("1", "fist"), {"a": 1, "b": 0})
    assert "takes 1 for a name, as others are" in caplog.text


def test_a_row_without_a_label_is_of_a_clip_without_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clips = find_clips([videos(tmp_path / "v", "a.mp4", "b.mp4")])
    (tmp_path / "labels.csv").write_text("a.mp4,fist\nb.mp4,\n")
    told = label_clips(clips, tmp_path / "labels.csv")
    assert (told.class_names, dict(told.label)) == (("fist",), {"a": 0})
    assert "1 of its 2 rows have no label" in caplog.text


@pytest.mark.parametrize("folder", ["", "nturgb+d/"])
def test_some_names_of_ntu_among_others_keep_their_labels(
    tmp_path: Path, folder: str, caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"{folder}{name}.avi" for name in ("S001C001P001R001A001_rgb", "S001C002P003R002A060_rgb", "extra")]
    told = label_clips(find_clips([videos(tmp_path / "v", *names)]))
    assert told.source == "ntu"
    assert dict(told.label) == {"S001C001P001R001A001": 0, "S001C002P003R002A060": 59}
    assert "1 of 3 names are not those of NTU RGB+D" in caplog.text


def test_folders_of_classes_say_more_than_names_of_ntu(tmp_path: Path) -> None:
    told = label_clips(find_clips([videos(tmp_path / "v", "fall/S001C001P001R001A043_rgb.avi", "walk/mine.mp4")]))
    assert told.class_names == ("fall", "walk")
    one_class = ("fall/S001C001P001R001A043_rgb.avi", "fall/a.mp4", "fall/b.mp4")
    assert label_clips(find_clips([videos(tmp_path / "one", *one_class)])).class_names == ("fall",)


def test_names_are_unique(tmp_path: Path) -> None:
    clips = find_clips([videos(tmp_path / "v", "a.mp4", "a.avi")])
    assert sorted(clip.name for clip in clips) == ["a.avi", "a.mp4"]
    videos(tmp_path / "w", "a.mp4")
    with pytest.raises(SkelactError, match=r"two videos are called 'a\.mp4'"):
        find_clips([tmp_path / "v", tmp_path / "w"])


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(SkelactError, match="found none"):
        find_clips([tmp_path])
    with pytest.raises(SkelactError, match="no such folder or video"):
        find_clips([tmp_path / "missing"])


def test_a_split_is_stratified_and_the_same_for_a_seed() -> None:
    label = {f"{k}/{n}": k for k, count in enumerate((50, 10, 2, 1)) for n in range(count)}
    groups = {name: name for name in label}
    split = make_split(label, groups, seed=0)
    assert Counter(label[name] for name in split["val"]) == {0: 10, 1: 2, 2: 1}, "a lone sample is for training"
    assert sorted(split["train"] + split["val"]) == sorted(label)
    assert make_split(label, groups, seed=0) == split
    assert make_split(label, groups, seed=1) != split


def test_no_group_is_on_both_sides(tmp_path: Path) -> None:
    names = [f"{action}/{who}_{n}.mp4" for action in ("wave", "walk") for who in "abcdefgh" for n in range(3)]
    clips = find_clips([videos(tmp_path, *names)])
    groups = groups_of(clips, r"/([a-z])_")
    split = make_split(label_clips(clips).label, groups, seed=0)
    train, val = ({groups[name] for name in split[side]} for side in ("train", "val"))
    assert val
    assert not train & val
    assert Counter(name.split("/")[0] for name in split["val"]) == {"wave": 3 * len(val), "walk": 3 * len(val)}


def test_of_two_groups_one_is_for_validation(caplog: pytest.LogCaptureFixture) -> None:
    groups = {f"{action}/{who}_{n}": who for action in ("wave", "walk") for who in ("anna", "bob") for n in range(5)}
    label = {name: int(name.startswith("walk")) for name in groups}
    split = make_split(label, groups, seed=0)
    assert {side: {groups[name] for name in names} for side, names in split.items()} in (
        {"train": {"anna"}, "val": {"bob"}},
        {"train": {"bob"}, "val": {"anna"}},
    )
    assert not caplog.text
    assert list(make_split(label, dict.fromkeys(label, "anna"), seed=0)) == ["train"]
    assert "no validation split" in caplog.text


def test_a_group_that_some_names_lack_is_the_whole_of_what_is_found(tmp_path: Path) -> None:
    clips = find_clips([videos(tmp_path, "anna_1.mp4", "bob.mp4")])
    assert groups_of(clips, "(anna)_|bob") == {"anna_1": "anna", "bob": "bob"}


@pytest.mark.skipif(sys.platform != "linux", reason="file names are Unicode elsewhere")
def test_a_name_that_is_no_unicode_is_one_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "wave").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/wave/caf\xe9.mp4")).touch()
    (clip,) = find_clips([tmp_path])
    assert clip.name == "wave/caf\\udce9"
    assert clip.path.exists()


def test_group_patterns_that_do_not_fit(tmp_path: Path) -> None:
    clips = find_clips([videos(tmp_path, "a.mp4")])
    with pytest.raises(SkelactError, match="expected a regular expression"):
        groups_of(clips, "(")
    with pytest.raises(SkelactError, match="finds nothing in 'a'"):
        groups_of(clips, r"\d")
