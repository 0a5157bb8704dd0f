"""Text on pictures, and the colours that it goes with."""

from __future__ import annotations

import unicodedata

import cv2

from skelact.structures import Array

Color = tuple[int, int, int]

# BGR, after Okabe and Ito's palette, whose colours colour-blind people tell apart.
TRACK_COLORS: tuple[Color, ...] = (
    *((120, 210, 60), (230, 140, 60), (80, 90, 245), (70, 225, 245)),
    *((225, 110, 200), (215, 215, 90), (60, 160, 250), (190, 190, 190)),
)
INK, PAPER = (20, 18, 16), (255, 255, 255)
TEXT_WEIGHT = 550  # of OpenCV's own font: 400 is regular, 700 bold
HERSHEY_PX = 30  # height of a line of OpenCV's line font at scale 1


def draw_text(image: Array, text: str, baseline: tuple[int, int], text_px: int, color: Color) -> None:
    """Write into a picture, in place.

    Args:
        image: (H, W, 3) BGR uint8.
        text: any Unicode with OpenCV 5.
        baseline: x and y of the left end of the line that the letters stand on.
        text_px: height of the letters' line.
        color: BGR.
    """
    if hasattr(cv2, "FontFace"):  # OpenCV 5: any Unicode
        cv2.putText(image, text, baseline, color, cv2.FontFace("sans"), text_px, TEXT_WEIGHT)
    else:
        scale = text_px / HERSHEY_PX
        cv2.putText(image, _ascii(text), baseline, cv2.FONT_HERSHEY_SIMPLEX, scale, color, 1, cv2.LINE_AA)


def text_width(text: str, text_px: int) -> int:
    """How many pixels a text takes."""
    if hasattr(cv2, "FontFace"):
        face = cv2.FontFace("sans")
        return int(cv2.getTextSize((0, 0), text, (0, 0), face, text_px, TEXT_WEIGHT)[2])
    return int(cv2.getTextSize(_ascii(text), cv2.FONT_HERSHEY_SIMPLEX, text_px / HERSHEY_PX, 1)[0][0])


def _ascii(text: str) -> str:
    """Letters without their accents, all that OpenCV 4 can write; ``?`` for what has no such letter."""
    letters = [c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c)]
    return "".join(letters).encode("ascii", "replace").decode()
