"""The project's own weights, which come with it: a name becomes a verified file, without a network.

They lie in the folder ``weights`` of a checkout, and inside the installed package. Its ``index.json`` is written by the
scripts that train them and tells of each name the file, its sha256 and its model card; of a fusion, the streams.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path

from skelact.errors import SkelactError
from skelact.files import sha256_of

INDEX = "index.json"
DEFAULT_MODEL = "skelact-daily"
# In a wheel, and in a checkout that is installed with `pip install -e`.
FOLDERS = (Path(__file__).parent / "shipped", Path(__file__).parents[1] / "weights")


@dataclass(frozen=True)
class ShippedModel:
    """One name in the index.

    Attributes:
        name: what ``--model`` or ``--pose-model`` takes.
        kind: ``action``, or ``pose`` for YOLO weights.
        file: in the folder; empty for a fusion.
        sha256: of the file.
        stream, layout: of a classifier's input.
        class_names: of a classifier.
        streams: of a fusion, (name, weight of its scores).
        card: the model card's file in the folder.
    """

    name: str
    kind: str
    file: str = ""
    sha256: str = ""
    stream: str = ""
    layout: str = ""
    class_names: tuple[str, ...] = ()
    streams: tuple[tuple[str, float], ...] = ()
    card: str = ""


def folder() -> Path:
    """Where the weights that came with this installation are."""
    return next((path for path in FOLDERS if (path / INDEX).is_file()), FOLDERS[0])


@functools.cache
def shipped() -> dict[str, ShippedModel]:
    """All names in the index, fusions before their streams; empty where nothing came with the installation."""
    path = folder() / INDEX
    if not path.is_file():
        return {}
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        models = (
            ShippedModel(
                name=name,
                **{
                    **row,
                    "class_names": tuple(row.get("class_names", ())),
                    "streams": tuple((stream, float(weight)) for stream, weight in row.get("streams", {}).items()),
                },
            )
            for name, row in rows.items()
        )
        return {model.name: model for model in models}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise SkelactError(f"{path}: damaged ({error}); install skelact anew") from None


def shipped_path(name: str) -> Path:
    """The verified file of a shipped name that is no fusion.

    Raises:
        SkelactError: it is missing, or not what the index says.
    """
    model = shipped()[name]
    path = folder() / model.file
    if not path.is_file():
        raise SkelactError(f"{path}: missing, though it comes with skelact; install skelact anew")
    found = sha256_of(path)
    if found != model.sha256:
        raise SkelactError(f"{path}: expected sha256 {model.sha256}, found {found}; install skelact anew")
    return path
