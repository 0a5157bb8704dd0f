"""The overlay: boxes, track ids, skeletons and the running label, on a video or on a plain background."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from tqdm import tqdm

from skelact.errors import SkelactError
from skelact.faces import blur_faces, faces_around
from skelact.kinds import PICKLE_SUFFIXES
from skelact.lettering import INK, PAPER, TRACK_COLORS, Color, draw_text, text_width
from skelact.roi import Region
from skelact.skeleton import LAYOUTS, Layout
from skelact.strip import Current, Strip
from skelact.structures import Array, PoseSequence, Prediction, SourceResult, Track
from skelact.video import DEFAULT_FPS, VideoWriter, probe_video, read_ahead, read_frames

T = TypeVar("T")
Label = tuple[float, float, str]  # start_s, stop_s, text

MIN_SCORE = 0.3  # joints below are guesses, and not drawn
# As lettering.TRACK_COLORS after Okabe and Ito's palette.
LIMB_COLORS: dict[str, Color] = {
    "left": (0, 159, 240),  # orange
    "right": (250, 190, 90),  # sky blue
    "torso": (225, 235, 235),  # nearly white
    "head": (190, 140, 240),  # pink
}
BACKGROUND = (38, 32, 28)
REGION_COLOR = (70, 225, 245)
POSES_SHAPE = (720, 1280)  # (H, W) px of a picture for poses that tell none
HEAD = frozenset(("head", "nose", "eye", "ear"))
TRUNK = frozenset(("shoulder", "hip", "neck", "spine", "pelvis", "chest"))
FAR = 2.0**16  # px, outside of any picture
PICTURES_AHEAD = 4  # that wait to be drawn, and to be written: each is done in a thread of its own
SUBPIXEL = 4  # OpenCV draws at 1 / 2^4 pixel, so that slow movements don't jitter


class Overlay:
    """Draws the people of one sequence into its frames.

    Args:
        sequence: the people. Tracks in 3D have no place in a picture and are not drawn.
        layout: of their joints, by default what ``sequence.layout`` names; an unknown one draws no bones.
        regions: outlined.

    Raises:
        SkelactError: the layout has another number of joints than the tracks.
    """

    def __init__(self, sequence: PoseSequence, layout: Layout | None = None, regions: Sequence[Region] = ()) -> None:
        self.polygons = [region.pixels(sequence.info.img_shape).round().astype(np.int32) for region in regions]
        layout = layout or LAYOUTS.get(sequence.layout)
        self.tracks = [track for track in sequence.tracks if track.keypoint.shape[2] == 2]
        for track in self.tracks:
            if layout and track.keypoint.shape[1] != layout.num_joints:
                raise SkelactError(
                    f"expected {layout.num_joints} joints, as layout {layout.name!r} has, found "
                    f"{track.keypoint.shape[1]} in track {track.track_id}; give the layout of these poses"
                )
        self.bones = bones(layout) if layout else ()

    def draw(
        self,
        image: Array,
        frame_index: int,
        label: str | None = None,
        captions: Mapping[tuple[int, ...], str] | None = None,
    ) -> Array:
        """A copy of the picture with everybody who is in that frame, and the label in a corner.

        Args:
            image: (H, W, 3) BGR uint8.
            frame_index: of the picture in the sequence.
            label: what to write in the corner, any Unicode.
            captions: what to write at people, by their track ids; a pair's goes below the two.
        """
        image = image.copy()
        captions = captions or {}
        text_px = max(11, round(min(image.shape[:2]) / 30))
        for polygon in self.polygons:
            cv2.polylines(image, [polygon], True, REGION_COLOR, max(1, text_px // 8), cv2.LINE_AA)
        boxes: dict[int, Array] = {}
        for track in self.tracks:
            t = frame_index - track.start_frame
            if 0 <= t < track.num_frames:
                box = self._draw_person(image, track, t, text_px, captions.get((track.track_id,), ""))
                if box is not None:
                    boxes[track.track_id] = box
        for track_ids, caption in captions.items():
            if len(track_ids) > 1 and boxes.keys() >= set(track_ids):
                around = np.array([boxes[track_id] for track_id in track_ids])
                corner = float(around[:, 0].min()), float(around[:, 3].max()) + 1.5 * text_px
                _draw_tag(image, f"{'+'.join(map(str, track_ids))} {caption}", corner, PAPER, text_px)
        if label:
            _draw_label(image, label, round(text_px * 1.25))
        return image

    def _draw_person(self, image: Array, track: Track, t: int, text_px: int, caption: str) -> Array | None:
        """Draw somebody in their frame ``t``, and tell their box, if they are seen."""
        point = _drawable(track.keypoint[t])
        seen = np.any(point != 0, axis=1)
        if track.keypoint_score is not None:
            seen &= track.keypoint_score[t] >= MIN_SCORE
        box = None if track.bbox is None else _drawable(track.bbox[t])
        box = box if box is not None and box.any() else None
        if box is None and not seen.any():
            return None
        left, top, right, bottom = box if box is not None else (*point[seen].min(0), *point[seen].max(0))
        # As bold as the picture is large, but small people keep thin limbs, and the smallest get no outline.
        bold = min(min(image.shape[:2]) / 220, max(right - left, bottom - top) / 60)
        width = max(1, round(bold))
        outlines = (1, 0) if width > 1 else (0,)
        color = TRACK_COLORS[(track.track_id - 1) % len(TRACK_COLORS)]
        if box is not None:
            x1, y1, x2, y2 = (round(float(side)) for side in box)
            cv2.rectangle(image, (x1, y1), (x2, y2), color, max(1, round(0.6 * width)), cv2.LINE_AA)
        fine = (point * 2**SUBPIXEL).round().astype(int).tolist()
        for edge in outlines:
            for a, b, limb in self.bones:
                if seen[a] and seen[b]:
                    paint = INK if edge else limb
                    cv2.line(image, fine[a], fine[b], paint, width + 2 * edge, cv2.LINE_AA, SUBPIXEL)
        for v in np.flatnonzero(seen):
            for edge in outlines:
                radius = round((max(0.9, bold) + edge) * 2**SUBPIXEL)
                cv2.circle(image, fine[v], radius, INK if edge else PAPER, -1, cv2.LINE_AA, SUBPIXEL)
        _draw_tag(image, f"{track.track_id} {caption}".strip(), (float(left), float(top)), color, text_px)
        return np.array((left, top, right, bottom))


def draw_result(
    path: Path,
    result: SourceResult,
    out: Path,
    progress: bool = False,
    regions: Sequence[Region] = (),
    hide_faces: bool = False,
) -> None:
    """Write the overlay of what ``predict`` answered for a video or for a sample of a pickle.

    Args:
        path: of the source.
        result: with its sequence.
        out, progress, regions, hide_faces: as in ``render_video``.
    """
    assert result.sequence is not None
    labels, segments = [], result.predictions
    if result.granularity == "clip":
        labels, segments = [(p.start_s, p.stop_s, f"{p.class_name} {p.score:.2f}") for p in result.predictions], ()
    if path.suffix.lower() in PICKLE_SUFFIXES:
        render_poses(result.sequence, labels, out, progress, segments=segments)
    else:
        render_video(
            path,
            result.sequence,
            labels,
            out,
            progress,
            segments=segments,
            regions=regions,
            hide_faces=hide_faces,
        )


def render_video(
    source: str | Path,
    sequence: PoseSequence,
    labels: Sequence[Label],
    out: str | Path,
    progress: bool = False,
    segments: Sequence[Prediction] = (),
    regions: Sequence[Region] = (),
    hide_faces: bool = False,
) -> None:
    """Draw the people and labels of a sequence into its video, which is decoded once more.

    Args:
        source: the video that the poses were found in.
        sequence: the people.
        labels: (start_s, stop_s, text) in seconds from the first frame; where several hold, the one whose
            middle is nearest.
        out: the mp4 to write, with the source's sound.
        progress: draw a bar on stderr, if that is a terminal.
        segments: what persons and pairs do; it is written at them while they do it, and drawn as a timeline under the
            picture, which makes the video higher.
        regions: outlined.
        hide_faces: make the faces in ``sequence.faces`` unrecognisable.

    Raises:
        SkelactError: the source can't be read or isn't of the poses' size, or ``out`` can't be written.
    """
    info = probe_video(source)
    if info.img_shape != tuple(sequence.info.img_shape):
        (height, width), (pose_height, pose_width) = info.img_shape, sequence.info.img_shape
        raise SkelactError(
            f"{source}: expected the video of these poses, {pose_width} x {pose_height}, found one of "
            f"{width} x {height}; give the one that they were found in"
        )

    def pictures() -> Iterator[tuple[int, float, Array]]:
        for frame in read_frames(source, lambda problem: None):  # told when the poses were found
            if hide_faces:
                blur_faces(frame.image, faces_around(sequence.faces, frame.index, info.fps))
            yield frame.index, frame.time_s, frame.image

    overlay = Overlay(sequence, regions=regions)
    _render(pictures(), overlay, sequence, labels, segments, out, info.img_shape, source, progress)


def render_poses(
    sequence: PoseSequence,
    labels: Sequence[Label],
    out: str | Path,
    progress: bool = False,
    layout: Layout | None = None,
    segments: Sequence[Prediction] = (),
) -> None:
    """Draw poses that have no video on a dark background; those in 3D as seen from the front.

    Args:
        sequence, labels, out, progress, segments: as in ``render_video``.
        layout: as in ``Overlay``.

    Raises:
        SkelactError: the sequence has no frames, or ``out`` can't be written.
    """
    img_shape = sequence.info.img_shape if all(sequence.info.img_shape) else POSES_SHAPE
    overlay = Overlay(_seen_from_front(sequence, img_shape), layout)
    blank = np.full((*img_shape, 3), BACKGROUND, np.uint8)
    pictures = ((index, time_s, blank) for index, time_s in enumerate(sequence.time_s.tolist()))
    _render(pictures, overlay, sequence, labels, segments, out, img_shape, None, progress)


def _render(
    pictures: Iterable[tuple[int, float, Array]],
    overlay: Overlay,
    sequence: PoseSequence,
    labels: Sequence[Label],
    segments: Sequence[Prediction],
    out: str | Path,
    img_shape: tuple[int, int],
    audio_from: str | Path | None,
    progress: bool,
) -> None:
    """Write (index, time_s, picture) as a video, with all that is drawn into and under each picture."""
    stop_s = float(sequence.time_s[-1]) + 1 / (sequence.info.fps or DEFAULT_FPS)
    strip = Strip(segments, stop_s, img_shape) if segments else None
    shape = (img_shape[0] + (strip.height if strip else 0), img_shape[1])
    current = Current(segments)

    def drawn() -> Iterator[tuple[float, Array]]:
        with closing(read_ahead(pictures, PICTURES_AHEAD)) as ready:
            for index, time_s, picture in ready:
                image = overlay.draw(picture, index, _label_at(labels, time_s), current.captions(time_s))
                yield time_s, np.concatenate([image, strip.draw(time_s)]) if strip else image

    with (
        VideoWriter(out, shape, sequence.info.fps or DEFAULT_FPS, audio_from) as writer,
        closing(read_ahead(drawn(), PICTURES_AHEAD)) as ready,
    ):
        for time_s, image in _bar(ready, out, sequence.num_frames, progress):
            writer.write(image, time_s)


def _bar(frames: Iterable[T], out: str | Path, num_frames: int, progress: bool) -> Iterable[T]:
    """The frames, counted on stderr; never where that is no terminal."""
    disable = None if progress else True
    return tqdm(frames, desc=Path(out).name, total=num_frames, unit=" frames", disable=disable)


def _label_at(labels: Sequence[Label], time_s: float) -> str | None:
    """The text that holds at a time; of several, the one whose middle is nearest."""
    holding = [label for label in labels if label[0] <= time_s < label[1]]
    if not holding:
        return None
    return min(holding, key=lambda label: abs(label[0] + label[1] - 2 * time_s))[2]


def _seen_from_front(sequence: PoseSequence, img_shape: tuple[int, int]) -> PoseSequence:
    """Turn tracks in metres (x right, y up) into pixels, all by one scale that shows everybody."""
    spatial = [track for track in sequence.tracks if track.keypoint.shape[2] == 3]
    points = [track.keypoint[track.present][..., :2].reshape(-1, 2) for track in spatial]
    if not sum(map(len, points)):
        return sequence
    low, high = np.concatenate(points).min(0), np.concatenate(points).max(0)
    height, width = img_shape
    scale = 0.8 * min(width / max(high[0] - low[0], 1e-6), height / max(high[1] - low[1], 1e-6))
    flip = np.array([1, -1])  # pictures count y downwards

    def flat(track: Track) -> Track:
        pixels = (track.keypoint[..., :2] - (low + high) / 2) * scale * flip + (width / 2, height / 2)
        keypoint = np.where(track.present[:, None, None], pixels, 0).astype(np.float32)
        return dataclasses.replace(track, keypoint=keypoint, bbox=None)

    tracks = tuple(flat(track) if track.keypoint.shape[2] == 3 else track for track in sequence.tracks)
    return dataclasses.replace(sequence, tracks=tracks)


def _drawable(pixels: Array) -> Array:
    """Pixels without NaN, and none farther away than OpenCV's integers reach."""
    return np.clip(np.nan_to_num(pixels), -FAR, FAR)


@functools.lru_cache(maxsize=8)
def bones(layout: Layout) -> tuple[tuple[int, int, Color], ...]:
    """The edges to draw, coloured by limb.

    Shoulders and hips get a bar where no neck or spine joins them. coco's graph hangs the shoulders on the
    nose, which draws no person: there the head floats above the bar.
    """
    edges = set(layout.edges)
    for left, right in layout.flip_pairs:
        if not layout.joints[left].endswith(("shoulder", "hip")):
            continue
        around = [{a + b - v for a, b in layout.edges if v in (a, b)} for v in (left, right)]
        joints_between = around[0] & around[1]
        if all(_has_word(layout.joints[v], HEAD) for v in joints_between):
            edges -= {(v, between) for v in (left, right) for between in joints_between}
            edges.add((left, right))
    return tuple((a, b, _bone_color(layout, a, b)) for a, b in sorted(edges))


def _bone_color(layout: Layout, a: int, b: int) -> Color:
    """By the names of the bone's ends; one without a body part in it (a finger) by its first word."""
    ends = layout.joints[a], layout.joints[b]
    if any(_has_word(joint, HEAD) for joint in ends):
        return LIMB_COLORS["head"]
    if all(_has_word(joint, TRUNK) for joint in ends):
        return LIMB_COLORS["torso"]
    side = ends[0].split("_")[0]
    first_words = list(dict.fromkeys(joint.split("_")[0] for joint in layout.joints))
    return LIMB_COLORS.get(side, TRACK_COLORS[first_words.index(side) % len(TRACK_COLORS)])


def _has_word(joint: str, words: frozenset[str]) -> bool:
    return not words.isdisjoint(joint.split("_"))


def _draw_tag(image: Array, text: str, corner: tuple[float, float], color: Color, text_px: int) -> None:
    """A filled box with a track id on the top left corner of a person, inside where the picture ends."""
    pad = max(2, text_px // 4)
    text = _cut_to(text, text_px, image.shape[1] - 2 * pad)
    box_width, box_height = text_width(text, text_px) + 2 * pad, text_px + pad
    x = max(min(round(corner[0]), image.shape[1] - box_width), 0)
    y = min(max(round(corner[1]) - box_height, 0), image.shape[0] - box_height)
    cv2.rectangle(image, (x, y), (x + box_width - 1, y + box_height - 1), color, -1)
    draw_text(image, text, (x + pad, y + box_height - pad), text_px, INK)


def _draw_label(image: Array, text: str, text_px: int) -> None:
    """Light text on a dark panel in the top left corner. Too long a text gets smaller, then cut."""
    text = " ".join(text.split())
    pad = text_px // 2
    room = image.shape[1] - 4 * pad
    while text_width(text, text_px) > room and text_px > 11:
        text_px -= 1
    text = _cut_to(text, text_px, room)
    panel = image[pad : 2 * pad + 2 * text_px, pad : 3 * pad + text_width(text, text_px)]
    panel[:] = (0.3 * panel + 0.7 * np.array(INK)).astype(np.uint8)
    draw_text(panel, text, (pad, pad // 2 + round(1.3 * text_px)), text_px, PAPER)


def _cut_to(text: str, text_px: int, room: int) -> str:
    """A text, or as much of its start as there is room for, in pixels."""
    while text_width(text, text_px) > room and len(text) > 2:
        text = text[:-2].rstrip() + "…"
    return text
