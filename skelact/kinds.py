"""What a file is that was given in place of another, told by its name, and what takes it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

VIDEO_SUFFIXES = frozenset(
    ".3gp .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .webm .wmv".split()  # noqa: SIM905
)
PICKLE_SUFFIXES = (".pkl", ".pickle")
MODEL_SUFFIXES = (".safetensors", ".pth", ".pt", ".onnx", ".xml", ".torchscript", ".engine")
JSON_SUFFIXES = (".json",)

_KINDS: tuple[tuple[Collection[str], str], ...] = (
    (VIDEO_SUFFIXES, "a video; skelact predict tells what is in it, extract-poses makes a dataset of a folder of them"),
    (PICKLE_SUFFIXES, "a pickle; skelact train and test take datasets, fuse takes score dumps"),
    (MODEL_SUFFIXES, "a network; give it as --model or --pose-model"),
    (JSON_SUFFIXES, "JSON; skelact convert makes a dataset of poses in it, report a page of what predict found"),
    ((".skeleton",), "NTU's skeletons; skelact convert makes a dataset of them"),
    ((".csv", ".txt", ".srt", ".vtt", ".html", ".md", ".yaml", ".yml"), "text; give the path of another file"),
    ((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp"), "a picture; give the path of another file"),
)


def kind_of(path: str | Path, expected: Collection[str] = ()) -> str | None:
    """What a file that can't be read as it should is instead, and what to do with it.

    Args:
        path: of what is there.
        expected: suffixes that it may have; a file with one of them is a damaged one, if not empty.

    Returns:
        What to say after "found"; None where the name does not tell.
    """
    path = Path(path)
    if path.is_dir():
        return "a folder; skelact extract-poses makes a dataset of its videos"
    if path.is_file() and not path.stat().st_size:
        return "an empty file; copy or download it again"
    suffix = path.suffix.lower()
    return None if suffix in expected else next((told for suffixes, told in _KINDS if suffix in suffixes), None)
