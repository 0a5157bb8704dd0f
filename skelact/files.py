"""A file appears whole at its final path, or not at all."""

from __future__ import annotations

import atexit
import errno
import functools
import hashlib
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import platformdirs

from skelact.errors import SkelactError

_ADVICE = {
    errno.ENOSPC: "the disk is full; free some space or write elsewhere",
    errno.EDQUOT: "the disk quota is used up; free some space or write elsewhere",
    errno.EFBIG: "the file is too large for this disk; write elsewhere",
    errno.EACCES: "no permission to write there; choose another folder",
    errno.EPERM: "no permission to write there; choose another folder",
    errno.EROFS: "that disk is read-only; choose another folder",
    errno.EEXIST: "a file stands where its folder should be; choose another folder",
    errno.ENOTDIR: "a file stands where its folder should be; choose another folder",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
}


def in_utf8(name: str) -> str:
    """The name of a file, with escapes for bytes that are no UTF-8: other files hold it."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


CHUNK = 1 << 24  # bytes; smaller ones would wait for Python's lock more often than they compute


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Write a file under a temporary name beside the final one, and rename it on success.

    On any exception the temporary file is removed and an older file at ``path`` stays as it was. Missing
    folders are created. What is no regular file (``/dev/null``, a pipe) is written directly. A link stays one, and
    the file that it leads to is written: ``/dev/stdout`` leads to a file where the output is redirected to one.

    Args:
        path: the final path.

    Yields:
        The path to write to: hidden, in the same folder as the file and with the same suffix.

    Raises:
        SkelactError: the path is a folder, or the system refused to write (disk full, no permission, ...).
    """
    path = Path(path)
    target = Path(os.path.realpath(path)) if os.path.islink(path) else path
    temporary = target.with_name(f".skelact-{uuid.uuid4().hex[:12]}{path.suffix}") if path.name else path
    try:
        if path.is_dir():
            raise SkelactError(f"cannot write {path}: expected a file, found a folder; add a file name")
        if path.exists() and not path.is_file():
            yield path
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        if error.filename and not _is_ours(str(error.filename), path, target, temporary):
            raise  # the body failed on another file
        reason = _ADVICE.get(error.errno or 0) or f"{error.strerror or error}; choose another path"
        if sys.platform == "win32" and isinstance(error, PermissionError):
            reason = "no permission to write there, or another program has it open; close it, or choose another path"
        raise SkelactError(f"cannot write {path}: {reason}") from error


class _Undo(Exception):  # noqa: N818
    """Leaves ``atomic_path`` without a file."""


def check_writable(path: str | Path, sources: Iterable[str | Path | None] = ()) -> None:
    """Find out before hours of work, rather than after, that a file can't be written.

    Args:
        path: of the file.
        sources: what is read, which it must not replace; names of what is no file are none.

    Raises:
        SkelactError: as ``atomic_path``, or it is a source.
    """
    not_a_source(Path(path), [Path(source) for source in sources if source is not None])
    with suppress(_Undo), atomic_path(path) as part:
        if part != Path(path):  # a pipe or device is left alone
            part.touch()
            if sys.platform == "win32" and os.path.isfile(path):  # one that is open elsewhere can't be replaced there
                with open(path, "r+b"):
                    pass
        raise _Undo


def not_a_source(out: Path, sources: Sequence[Path]) -> Path:
    """The path, unless writing there would destroy a source."""
    if os.path.isfile(out) and any(out.samefile(source) for source in sources if os.path.isfile(source)):
        raise SkelactError(f"cannot write {out}: the output would replace its source; choose another path")
    return out


def read_text(path: str | Path) -> str:
    """The text of a file in UTF-8, with or without a mark of it.

    Raises:
        ValueError: its bytes are no such text.
        OSError: it can't be read.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"bytes that are no text in UTF-8, from byte {error.start} on") from None


def read_names(path: str | Path, what: str) -> list[str]:
    """The names in a text file, one a line; empty lines are none.

    Raises:
        SkelactError: it can't be read, or is no text in UTF-8; ``what`` says what it is for.
    """
    try:
        lines = read_text(path).splitlines()
    except (OSError, ValueError) as error:
        raise SkelactError(f"{what} {path}: expected a text file with names, one a line, found {error}") from None
    return [line.strip() for line in lines if line.strip()]


def cache_folder() -> Path:
    """Where skelact keeps what it can make again: ``$SKELACT_CACHE``, or a folder in the user's cache."""
    chosen = os.environ.get("SKELACT_CACHE")
    return Path(chosen) if chosen else user_cache()


@functools.cache
def user_cache() -> Path:
    """skelact's folder in the user's cache; for a user without a home, as in some containers, one of this process."""
    try:
        return platformdirs.user_cache_path("skelact")
    except RuntimeError:
        folder = tempfile.mkdtemp(prefix="skelact-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return Path(folder)


def _is_ours(filename: str, path: Path, target: Path, temporary: Path) -> bool:
    """Whether an error names the file, its temporary name or one of its folders; FFmpeg says file:PATH."""
    found = Path(filename.removeprefix("file:"))
    return found in (path, target, temporary, *path.parents, *target.parents)


def sha256_of(path: str | Path) -> str:
    """The sha256 of a file, or of the files in a folder in the order of their names, in hex."""
    path = Path(path)
    digest = hashlib.sha256()
    # By their parts, for paths of Windows have an order of their own.
    for file in sorted(path.rglob("*"), key=lambda file: file.parts) if path.is_dir() else [path]:
        if not file.is_dir():
            with file.open("rb") as opened:
                while chunk := opened.read(CHUNK):
                    digest.update(chunk)
    return digest.hexdigest()
