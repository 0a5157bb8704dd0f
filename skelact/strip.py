"""Who does what at a time: as captions, and as a timeline under the picture."""

from __future__ import annotations

import bisect
import math
from collections import defaultdict
from collections.abc import Sequence

import cv2
import numpy as np

from skelact.calibration import UNKNOWN
from skelact.lettering import INK, PAPER, TRACK_COLORS, draw_text, text_width
from skelact.structures import Array, Prediction

DIM = (70, 66, 62)
PAGE_S = 60.0  # of the timeline under the picture
MAX_ROWS = 6  # in it


def clock(time_s: float) -> str:
    """``1:02:03.4``, without hours where there are none."""
    tenths = round(time_s * 10)
    minutes, seconds = divmod(tenths / 10, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{seconds:04.1f}" if hours else f"{minutes}:{seconds:04.1f}"


class Current:
    """What everybody does at a time."""

    def __init__(self, segments: Sequence[Prediction]) -> None:
        self._segments: dict[tuple[int, ...], list[Prediction]] = {}
        for segment in sorted(segments, key=lambda segment: segment.start_s):
            self._segments.setdefault(segment.track_ids, []).append(segment)
        self._starts = {who: [segment.start_s for segment in own] for who, own in self._segments.items()}

    def captions(self, time_s: float) -> dict[tuple[int, ...], str]:
        """Class and score by track ids; nothing for ``unknown``."""
        found = {}
        for who, own in self._segments.items():
            k = bisect.bisect_right(self._starts[who], time_s) - 1
            if k >= 0 and time_s < own[k].stop_s and own[k].class_name != UNKNOWN:
                found[who] = f"{own[k].class_name} {own[k].score:.2f}"
        return found


class Strip:
    """A timeline to draw under the pictures: a row for each person and pair, a block for each segment.

    It shows a page of up to a minute; the next one follows. Where more are seen than there are rows, those who are
    known to do something for longest get them, after those who do what nobody before them does: a fall among walkers.

    Args:
        segments: what they do.
        stop_s: the end of the video.
        img_shape: (H, W) of the pictures.
    """

    def __init__(self, segments: Sequence[Prediction], stop_s: float, img_shape: tuple[int, int]) -> None:
        self.text_px = max(11, round(min(img_shape) / 36))
        self.row_px = round(1.6 * self.text_px)
        self.width = img_shape[1]
        self.page_s = max(min(stop_s, PAGE_S), 1e-3)
        self.pages: list[list[Prediction]] = [[] for _ in range(self._pages_until(stop_s))]
        for segment in segments:
            stop = min(self._pages_until(segment.stop_s), len(self.pages))
            for page in range(int(segment.start_s / self.page_s), stop):
                self.pages[page].append(segment)
        rows = max(len({segment.track_ids for segment in page}) for page in self.pages)
        self.height = self.row_px * (min(rows, MAX_ROWS) + 1)
        names = dict.fromkeys(segment.class_name for segment in segments if segment.class_name != UNKNOWN)
        self.colors = {name: TRACK_COLORS[k % len(TRACK_COLORS)] for k, name in enumerate(names)}
        self.margin = text_width("00+00 ", self.text_px)
        self._drawn: tuple[int, Array] | None = None

    def draw(self, time_s: float) -> Array:
        """The strip (height, W, 3) BGR uint8 at a time."""
        page = min(int(time_s / self.page_s), len(self.pages) - 1)
        if self._drawn is None or self._drawn[0] != page:
            self._drawn = page, self._draw_page(page)
        image = self._drawn[1].copy()
        x = self._x(time_s, page)
        cv2.line(image, (x, 0), (x, self.height - 1), PAPER, max(1, self.text_px // 8))
        return image

    def _pages_until(self, time_s: float) -> int:
        return max(1, math.ceil(time_s / self.page_s - 1e-6))

    def _part(self, time_s: float, page: int) -> float:
        """Of a page that has passed by then."""
        return min(max(time_s / self.page_s - page, 0.0), 1.0)

    def _x(self, time_s: float, page: int) -> int:
        return round(self.margin + self._part(time_s, page) * (self.width - self.margin - 2))

    def _worth_showing(self, page: int) -> list[tuple[int, ...]]:
        """Who gets a row."""
        lengths: dict[tuple[int, ...], float] = defaultdict(float)  # in parts of the page
        classes: dict[tuple[int, ...], set[str]] = defaultdict(set)
        for segment in self.pages[page]:
            is_known = segment.class_name != UNKNOWN
            part = self._part(segment.stop_s, page) - self._part(segment.start_s, page)
            lengths[segment.track_ids] += is_known * part
            classes[segment.track_ids] |= {segment.class_name} if is_known else set()
        adding: list[tuple[int, ...]] = []
        others: list[tuple[int, ...]] = []
        so_far: set[str] = set()
        for who in sorted(lengths, key=lambda who: -lengths[who]):
            (others if classes[who] <= so_far else adding).append(who)
            so_far |= classes[who]
        return [*adding, *others][:MAX_ROWS]

    def _draw_page(self, page: int) -> Array:
        image = np.full((self.height, self.width, 3), INK, np.uint8)
        shown = sorted(self._worth_showing(page), key=lambda who: (len(who), who))
        rows = {who: k for k, who in enumerate(shown)}
        baseline = round(0.75 * self.row_px)
        for who, row in rows.items():
            place = (self.text_px // 3, row * self.row_px + baseline)
            draw_text(image, "+".join(map(str, who)), place, self.text_px, PAPER)
        for segment in self.pages[page]:
            if segment.track_ids not in rows:
                continue
            top = rows[segment.track_ids] * self.row_px + 2
            left, right = self._x(segment.start_s, page), self._x(segment.stop_s, page)
            block = image[top : top + self.row_px - 3, left : max(right - 1, left + 1)]
            block[:] = self.colors.get(segment.class_name, DIM)
            if segment.class_name != UNKNOWN and text_width(segment.class_name, self.text_px) < right - left - 6:
                draw_text(block, segment.class_name, (3, baseline - 2), self.text_px, INK)
        bottom = (self.height - self.row_px) + baseline
        times = {part: clock((page + part) * self.page_s) for part in (0.0, 0.5, 1.0)}
        widths = {part: text_width(text, self.text_px) for part, text in times.items()}
        if sum(widths.values()) + 2 * self.text_px > self.width - self.margin:
            del times[0.5]
        for part, text in times.items():
            x = self._x((page + part) * self.page_s, page) - round(part * widths[part])
            draw_text(image, text, (x, bottom), self.text_px, PAPER)
        return image
