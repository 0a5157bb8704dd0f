"""A file appears whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from skelact import files
from skelact.errors import SkelactError
from skelact.files import atomic_path, check_writable, read_names, read_text, sha256_of


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "poses.json"
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        assert temporary.parent == path.parent
        assert temporary.suffix == ".json"
        assert not path.exists()
        temporary.write_text("whole")
    assert path.read_text() == "whole"
    assert listing(path.parent) == ["poses.json"]


def write_half(path: Path, error: BaseException) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        raise error


@pytest.mark.parametrize("error", [KeyError("a bug"), KeyboardInterrupt(), SkelactError("bad input")])
def test_after_a_failure_the_old_file_is_there_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "poses.json"
    path.write_text("old")
    with pytest.raises(type(error)):
        write_half(path, error)
    assert path.read_text() == "old"
    assert listing(tmp_path) == ["poses.json"]


@pytest.mark.parametrize(
    ("code", "told"),
    [(errno.ENOSPC, "the disk is full"), (errno.EACCES, "no permission"), (errno.EROFS, "read-only")],
)
def test_what_the_system_refuses_is_told_in_one_line(tmp_path: Path, code: int, told: str) -> None:
    path = tmp_path / "poses.json"
    path.write_text("old")
    with pytest.raises(SkelactError, match=told) as caught:
        write_half(path, OSError(code, os.strerror(code)))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_text() == "old"
    assert listing(tmp_path) == ["poses.json"]


def test_an_error_on_another_file_is_not_blamed_on_this_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "poses.json"):
        (tmp_path / "missing.txt").read_text()
    assert listing(tmp_path) == []


def test_a_folder_is_no_file_to_write(tmp_path: Path) -> None:
    with pytest.raises(SkelactError, match="found a folder"), atomic_path(tmp_path):
        pass


def test_a_folder_can_not_stand_on_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    path = tmp_path / "file" / "poses.json"
    with pytest.raises(SkelactError, match="a file stands where its folder should be"), atomic_path(path):
        pass


def test_a_name_may_be_too_long(tmp_path: Path) -> None:
    with pytest.raises(SkelactError, match="name is too long"), atomic_path(tmp_path / ("n" * 300)):
        pass


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="needs /dev/null")
def test_a_device_is_written_and_not_replaced() -> None:
    with atomic_path("/dev/null") as path:
        assert path == Path("/dev/null")
        path.write_text("gone")
    assert not Path("/dev/null").is_file()


@pytest.mark.skipif(sys.platform != "linux", reason="links as Linux has them")
def test_a_link_stays_one_and_leads_to_the_new_file(tmp_path: Path) -> None:
    """A link to another disk, to a file that is not there yet, and /dev/stdout where it is redirected to a file."""
    disk = tmp_path / "disk"
    disk.mkdir()
    (disk / "poses.json").write_text("old")
    for link, leads_to in (("latest.json", "poses.json"), ("next.json", "new/poses.json")):
        (tmp_path / link).symlink_to(disk / leads_to)
        with atomic_path(tmp_path / link) as part:
            part.write_text(link)
        assert (tmp_path / link).is_symlink()
        assert (disk / leads_to).read_text() == link
    (tmp_path / "dev").mkdir()
    with (tmp_path / "redirected.txt").open("w") as out:
        (tmp_path / "dev" / "stdout").symlink_to(f"/dev/fd/{out.fileno()}")
        with atomic_path(tmp_path / "dev" / "stdout") as part:
            part.write_text("all")
    assert (tmp_path / "redirected.txt").read_text() == "all"
    assert listing(tmp_path / "dev") == ["stdout"]
    assert listing(tmp_path) == ["dev", "disk", "latest.json", "next.json", "redirected.txt"]


# --- before hours of work ----------------------------------------------------------------------------------------


def test_a_source_is_not_to_be_replaced_whatever_it_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "poses.pkl").write_text("poses")
    (tmp_path / "other.pkl").write_text("poses")
    os.link(tmp_path / "poses.pkl", tmp_path / "same.pkl")
    monkeypatch.chdir(tmp_path)
    for out in ("poses.pkl", tmp_path / "poses.pkl", tmp_path / "new" / ".." / "poses.pkl", "same.pkl"):
        (tmp_path / "new").mkdir(exist_ok=True)
        with pytest.raises(SkelactError, match="the output would replace its source"):
            check_writable(out, [None, "a-zoo-name", tmp_path / "poses.pkl"])
    check_writable("other.pkl", [tmp_path / "poses.pkl"])
    assert {path.read_text() for path in tmp_path.glob("*.pkl")} == {"poses"}, "nothing was written to find that out"


def test_on_windows_a_file_that_another_program_has_open_is_found_out_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "table.csv"
    check_writable(path)  # there is none yet
    path.write_text("old")
    check_writable(path)

    def refuse(path: Path, mode: str) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(files, "open", refuse, raising=False)
    with pytest.raises(SkelactError, match=r"table\.csv: no permission to write there, or another program has it open"):
        check_writable(path)
    assert listing(tmp_path) == ["table.csv"]


def test_the_hash_of_a_folder_is_that_of_its_files_in_the_order_of_their_names(tmp_path: Path) -> None:
    names = [f"{k * 37 % 100:02d}.bin" for k in range(100)]
    for name in names:
        (tmp_path / name).write_text(name)
    (tmp_path / "50").mkdir()
    assert sha256_of(tmp_path) == hashlib.sha256("".join(sorted(names)).encode()).hexdigest()
    assert sha256_of(tmp_path / "07.bin") == hashlib.sha256(b"07.bin").hexdigest()


def test_text_may_begin_with_a_mark_and_other_bytes_are_told_by_their_place(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_bytes(b"\xef\xbb\xbfwave\r\nwalk\n")
    assert (read_text(file), read_names(file, "class names")) == ("wave\nwalk\n", ["wave", "walk"])
    file.write_bytes(b"wave\n\xff\xd8")
    with pytest.raises(SkelactError, match="one a line, found bytes that are no text in UTF-8, from byte 5 on"):
        read_names(file, "class names")
