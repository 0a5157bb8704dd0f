"""Pictures of training and testing: curves and confusion matrices."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skelact.errors import SkelactError
from skelact.files import atomic_path, check_writable
from skelact.structures import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#0072b2", "#e69f00", "#6b7280"  # the first two are Okabe and Ito's
NUMBERED = 20  # classes; cells of larger matrices are too small for numbers
LONGEST = 32  # characters of a class name
NAMED = 400  # classes; of more, only those that occur are drawn, and without names if these are as many
LARGEST = 64.0  # inches of a matrix
WIDER_FONTS = (  # for scripts that matplotlib's own font lacks, as systems have them
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Zen Hei", "Droid Sans Fallback"),
    *("Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "PingFang SC", "Hiragino Sans", "Arial Unicode MS"),
)


def plot_confusion(matrix: Array | Sequence[Sequence[int]], class_names: Sequence[str], path: str | Path) -> None:
    """Draw a confusion matrix; each row is shown as shares of its class's samples.

    Args:
        matrix: (num_classes, num_classes) counts, a row for each label, a column for each answer.
        class_names: one for each class.
        path: of the picture; the suffix tells the format.

    Raises:
        SkelactError: it can't be written.
    """
    counts = np.asarray(matrix, float)
    if len(counts) > NAMED:
        occurs = np.flatnonzero(counts.any(0) | counts.any(1))
        counts, class_names = counts[np.ix_(occurs, occurs)], [class_names[int(k)] for k in occurs]
    num_classes = max(len(counts), 1)
    names = [name if len(name) <= LONGEST else name[: LONGEST - 1] + "…" for name in class_names]
    # Inches: 120 classes at 0.16 are 20 inches; a few get large cells; the rest is for names and the colour bar.
    cell = min(0.7, max(0.16, 8 / num_classes), LARGEST / num_classes)
    margin = 0.6 + 0.075 * max(map(len, names), default=0)
    width, height = max(num_classes * cell + margin + 1.5, 6), max(num_classes * cell + margin + 0.6, 4)
    with picture(path, width, height) as figure:
        _confusion(figure, counts, names, cell)


def _confusion(figure: Figure, counts: Array, names: Sequence[str], cell: float) -> None:
    """One that is ``cell`` inches a class."""
    from matplotlib.colors import PowerNorm

    totals = counts.sum(1)
    shares = counts / np.maximum(totals, 1)[:, None]
    num_classes = len(counts)
    axes = figure.subplots()
    # The square root: a confusion of a few hundredths should be seen.
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    font = min(9.0, max(5.5, cell * 50))
    ticks = range(num_classes if num_classes <= NAMED else 0)
    names = names[: len(ticks)]
    axes.set_xticks(ticks, names, rotation=90, fontsize=font)
    counted = [f"{name} ({int(total)})" for name, total in zip(names, totals, strict=False)]
    axes.set_yticks(ticks, counted, fontsize=font)
    axes.set_xlabel("answer")
    axes.set_ylabel("class (samples)")
    mean = shares.diagonal()[totals > 0].mean() if totals.any() else 0.0
    right = counts.trace() / max(totals.sum(), 1)
    axes.set_title(f"top-1 {right:.1%}, mean class accuracy {mean:.1%}", fontsize=11)
    axes.set_xticks(np.arange(len(ticks) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(ticks) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#e5e7eb", linewidth=0.4)
    axes.tick_params(length=0, which="both")
    if num_classes <= NUMBERED:
        for row, column in np.argwhere(counts > 0):
            share = shares[row, column]
            color = "white" if share > 0.35 else "black"
            axes.text(column, row, f"{share * 100:.0f}", ha="center", va="center", fontsize=font, color=color)
    bar = axes.inset_axes((1.02, 0, 0.02, 1))
    figure.colorbar(image, cax=bar, label="share of the class's samples")


def plot_curves(rows: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Draw how a training went: loss, accuracies and learning rate by epoch.

    Args:
        rows: one for each epoch, with ``training.LOG_FIELDS``; what is missing or None is left out.
        path: of the picture; the suffix tells the format.

    Raises:
        SkelactError: it can't be written.
    """
    with picture(path, 12, 3.6) as figure:
        _curves(figure, rows)


def _curves(figure: Figure, rows: Sequence[Mapping[str, Any]]) -> None:
    loss, top1, lr = figure.subplots(1, 3)
    _curve(loss, rows, "loss", BLUE, "training")
    _curve(loss, rows, "val_loss", ORANGE, "validation")
    _curve(top1, rows, "train_top1", BLUE, "training")
    _curve(top1, rows, "val_top1", ORANGE, "validation")
    _curve(lr, rows, "lr", GREY, "")
    loss.set_ylim(bottom=0)
    lr.set_ylim(bottom=0)
    top1.set_ylim(-0.02, 1.02)
    for axes, title in ((loss, "loss"), (top1, "top-1 accuracy"), (lr, "learning rate")):
        axes.set_title(title, fontsize=11)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(color="#e5e7eb", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        if len(axes.lines) > 1:
            axes.legend(frameon=False)
        axes.set_xlim(-0.5, max((int(row["epoch"]) for row in rows), default=0) + 0.5)
    validated = [row for row in rows if _number(row, "val_top1") is not None]
    if validated:
        best = max(validated, key=lambda row: float(row["val_top1"]))
        top1.plot([int(best["epoch"])], [float(best["val_top1"])], "o", color=ORANGE)
        top1.set_title(f"top-1 accuracy, best {float(best['val_top1']):.1%} (epoch {best['epoch']})", fontsize=11)


def _curve(axes: Axes, rows: Sequence[Mapping[str, Any]], key: str, color: str, label: str) -> None:
    points = [(int(row["epoch"]), _number(row, key)) for row in rows]
    known = [(epoch, value) for epoch, value in points if value is not None]
    if known:
        axes.plot(*zip(*known, strict=True), color=color, label=label, marker="." if len(known) < 40 else None)


def _number(row: Mapping[str, Any], key: str) -> float | None:
    """A log's value; a CSV has empty text where there is none."""
    value = row.get(key)
    return None if value is None or value == "" else float(value)


@contextmanager
def picture(path: str | Path, width: float, height: float) -> Iterator[Figure]:
    """A figure to draw on, inches wide and high, which is written to ``path`` in the end.

    Names in it are what they are: ``$`` begins no formula, and scripts that matplotlib's own font lacks are taken from
    fonts of the system, where it has them.
    """
    import matplotlib
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    fonts = ["DejaVu Sans", *(name for name in WIDER_FONTS if name in installed)]
    with matplotlib.rc_context({"text.parse_math": False, "font.family": fonts}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure = _figure(width, height)
        yield figure
        with atomic_path(path) as part:
            figure.savefig(part, dpi=110, bbox_inches="tight")


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def check_picture(path: str | Path, sources: Iterable[str | Path | None] = ()) -> None:
    """As ``files.check_writable``; the suffix must be one that pictures have, too."""
    known = _figure(1, 1).canvas.get_supported_filetypes()
    if Path(path).suffix.lower().removeprefix(".") not in known:
        raise SkelactError(f"{path}: expected a picture's name, ending with .{', .'.join(sorted(known))}")
    check_writable(path, sources)
