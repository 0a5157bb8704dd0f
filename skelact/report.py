"""A page that shows what ``skelact predict`` found: the video, who did what when, scores over time, skeletons.

It is one file that loads nothing from a network. Everything that comes from the JSON is escaped, and the page's own
policy forbids the browser to load anything but the video.
"""

from __future__ import annotations

import base64
import html
import itertools
import json
import logging
import mimetypes
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from skelact.calibration import UNKNOWN
from skelact.errors import SkelactError
from skelact.files import check_writable, read_text
from skelact.kinds import JSON_SUFFIXES, kind_of
from skelact.render import MIN_SCORE, bones
from skelact.skeleton import LAYOUTS
from skelact.strip import clock
from skelact.subtitles import who
from skelact.video import probe_video
from skelact.writers import SCHEMA_VERSION, write_text

logger = logging.getLogger("skelact")

POLICY = (
    "default-src 'none'; media-src 'self' file: data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'"
)
# After Paul Tol's light scheme, on which dark text can be read.
COLORS = ("#77aadd", "#ee8866", "#eedd88", "#ffaabb", "#99ddff", "#44bb99", "#bbcc33", "#aaaa00", "#c5a3d9", "#d9b38c")
GREY = "#99a0aa"  # of what is unknown
LINES = 6  # classes in a chart of scores: the likeliest
OPEN_CHARTS = 8  # of more people and pairs, the charts are shown on demand
POINTS = 1500  # across a chart; more would not be seen
OF_PICKLE = re.compile(r"\.(pkl|pickle)#", re.IGNORECASE)  # in a sample's name
MAX_EMBEDDED = 300 * 2**20  # bytes; browsers refuse data URLs of more than 512 MB


def write_report(result: str | Path, out: str | Path, *, video: str | Path | None = None, embed: bool = False) -> None:
    """Make a page of a JSON of ``predict``.

        skelact.write_report("result.json", "report.html", video="overlay.mp4")

    Args:
        result: the JSON file.
        out: the HTML file to write. It names the videos by their paths relative to it.
        video: shown in place of the source, such as the overlay; with several sources, the folder that
            ``predict --out-video`` wrote.
        embed: put the videos into the page, so that it can be sent to somebody; up to 300 MB each.

    Raises:
        SkelactError: the file is missing or no such JSON, or a video that was named or is to be embedded is missing.
    """
    result, out = Path(result), Path(out)
    content = _load(result)
    try:
        colors = _colors(content)
        sections = [_section(each, content, result, out, video, embed, colors) for each in content["results"]]
        check_writable(out, [result, video, *(each["source"] for each in content["results"])])
        models = ", ".join(dict.fromkeys(str(model["name"]) for model in content["models"]))  # streams share a name
        made = f"skelact {content['versions']['skelact']}, {models}"
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError) as error:
        raise SkelactError(
            f"{result}: expected the JSON of skelact predict, found one that lacks or garbles {error}"
        ) from error
    page = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Who does what, when</title>
<style>{_resource("report.css")}</style>
</head>
<body>
<h1>Who does what, when</h1>
<p class="facts">{html.escape(made)}</p>
{"".join(sections)}
<script>{_resource("report.js")}</script>
</body>
</html>
"""
    write_text(page, str(out))


def _load(path: Path) -> Any:
    try:
        content = json.loads(read_text(path))
    except FileNotFoundError:
        raise SkelactError(f"{path}: no such file; skelact predict VIDEO --json {path} makes it") from None
    except (OSError, ValueError, RecursionError) as error:
        reason = kind_of(path, JSON_SUFFIXES) or (error.strerror if isinstance(error, OSError) else error)
        raise SkelactError(f"{path}: expected the JSON of skelact predict, found {reason}") from None
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise SkelactError(
            f"{path}: expected the JSON of skelact predict with schema_version {SCHEMA_VERSION}, found "
            f"{'none' if version is None else version}"
        )
    if "results" not in content:
        found = f"that of {content['command']!r}" if "command" in content else "one without results"
        raise SkelactError(f"{path}: expected the JSON of skelact predict, found {found}")
    return content


def _resource(name: str) -> str:
    return (resources.files("skelact") / "pages" / name).read_text(encoding="utf-8")


def _colors(content: Mapping[str, Any]) -> dict[str, str]:
    """A colour for each class, those that are answered first."""
    answered = (p["class_name"] for result in content["results"] for p in result.get("predictions", ()))
    names = dict.fromkeys(name for name in itertools.chain(answered, content["class_names"]) if name != UNKNOWN)
    return {name: COLORS[k % len(COLORS)] for k, name in enumerate(names)}


# --- one source --------------------------------------------------------------------------------------------------


def _section(
    result: Mapping[str, Any],
    content: Mapping[str, Any],
    json_path: Path,
    out: Path,
    video: str | Path | None,
    embed: bool,
    colors: Mapping[str, str],
) -> str:
    title = f"<h2>{html.escape(str(result['source']))}</h2>"
    if result["error"] is not None:
        return f'<section data-duration="1">{title}<p class="problem">{html.escape(result["error"])}</p></section>'
    shape, predictions, people = result["video"], result["predictions"], len(result["tracks"])
    stops = [shape["num_frames"] / shape["fps"], *(float(p["stop_s"]) for p in predictions)]
    duration_s = max(*stops, 1e-3)
    facts = f"{clock(duration_s)}, {int(shape['width'])} x {int(shape['height'])}, {people} person{'s' * (people != 1)}"
    problems = "".join(f'<p class="problem">{html.escape(str(text))}</p>' for text in result["warnings"])
    found = _video_of(result, json_path, video, alone=len(content["results"]) == 1)
    source = _src(found, out, embed) if found else ""
    # What --video gives may be an overlay, which begins with its first picture, or the source, which may begin later.
    offset_s = float(shape.get("start_s", 0)) if video is None or not found else probe_video(found).start_s
    player = (
        f'<video controls preload="metadata" src="{html.escape(source)}"></video>'
        '<p class="problem unplayable" hidden>Your browser cannot show this video. Make an overlay with '
        "<code>skelact predict --out-video</code> and give it with <code>skelact report --video</code>.</p>"
        if source
        else ""
    )
    by_subject: dict[tuple[int, ...], list[Any]] = {}
    by_class: dict[str, list[Any]] = {}
    for prediction in predictions:
        by_subject.setdefault(tuple(map(int, prediction["track_ids"])), []).append(prediction)
        if prediction["class_name"] != UNKNOWN:
            by_class.setdefault(str(prediction["class_name"]), []).append(prediction)
    ticks = "".join(f"<time>{clock(duration_s * part)}</time>" for part in (0, 0.25, 0.5, 0.75, 1))
    scale = f'<div class="row"><span></span><div class="ticks">{ticks}</div></div>'
    persons = "".join(
        _row(who(subject), own, duration_s, colors, lambda p: p["class_name"])
        for subject, own in sorted(by_subject.items(), key=lambda item: (len(item[0]), item[0]))
    )
    actions = "".join(
        _row(name, own, duration_s, colors, lambda p: "+".join(map(str, p["track_ids"])), said=False)
        for name, own in by_class.items()
    )
    layout = str(result["poses"]["layout"])
    parts = [
        f'<section data-duration="{duration_s:.6f}" data-offset="{offset_s:.6f}">',
        f'{title}<p class="facts">{facts}</p>{problems}{player}',
        '<p class="current" aria-live="off"></p>',
        f"<h3>By person</h3>{persons}{scale}",
        f"<h3>By action</h3>{actions}{scale}" if actions else "",
        _charts(result.get("timelines", ()), duration_s, colors),
        f'<h3>What it looked like</h3><div class="cards">{"".join(_card(p, layout) for p in predictions)}</div>',
        "</section>",
    ]
    return "\n".join(part for part in parts if part)


def _video_of(result: Mapping[str, Any], json_path: Path, video: str | Path | None, alone: bool) -> Path | None:
    """What the player shows; None for poses without a video."""
    source = Path(str(result["source"]))
    if video is not None:
        found = Path(video) if alone and not Path(video).is_dir() else _overlay_in(Path(video), result)
        if not found.is_file():
            raise SkelactError(f"video {found}: no such file; --video takes the overlay of {source}")
        return found
    if OF_PICKLE.search(str(source)):
        return None
    return next((path for path in (source, json_path.parent / source) if path.is_file()), source)


def _src(found: Path, out: Path, embed: bool) -> str:
    """The player's ``src``: a URL, relative where there is one, or the video itself."""
    if embed:
        if not found.is_file():
            raise SkelactError(f"{found}: no such file to embed; give the video with --video")
        size = found.stat().st_size
        if size > MAX_EMBEDDED:
            raise SkelactError(
                f"{found}: has {size / 2**20:.0f} MB, browsers take {MAX_EMBEDDED // 2**20} MB in a page; leave out "
                "--embed, and put the video beside the page"
            )
        probe_video(found)  # a result from a stranger could name any file of ours
        mime_type = mimetypes.guess_type(found.name)[0] or "video/mp4"
        return f"data:{mime_type};base64,{base64.b64encode(found.read_bytes()).decode()}"
    if not found.is_file():
        logger.warning("%s: not found from here; the page will look for it there", found)
    try:
        relative = os.path.relpath(found.resolve(), out.resolve().parent)
    except ValueError:  # on another drive of Windows
        return found.resolve().as_uri()
    return quote(os.fsencode(Path(relative).as_posix()))


def _overlay_in(folder: Path, result: Mapping[str, Any]) -> Path:
    """The overlay of a source in the folder of ``predict --out-video``, which may have been moved since."""
    written = Path(str(result.get("overlay") or Path(str(result["source"])).with_suffix(".mp4").name)).parts
    ways = (folder.joinpath(*written[k:]) for k in range(1 if Path(*written).is_absolute() else 0, len(written)))
    return next((path for path in ways if path.is_file()), folder / written[-1])


def _row(
    name: str,
    segments: Iterable[Mapping[str, Any]],
    duration_s: float,
    colors: Mapping[str, str],
    label: Any,
    said: bool = True,
) -> str:
    """A line of the timeline, with a button for each segment; those at the same time are below each other."""
    lanes: list[list[str]] = []
    stops: list[float] = []
    for segment in sorted(segments, key=lambda segment: float(segment["start_s"])):
        free = (k for k, stop_s in enumerate(stops) if stop_s <= float(segment["start_s"]) + 1e-6)
        lane = next(free, len(lanes))
        if lane == len(lanes):
            lanes.append([])
            stops.append(0.0)
        lanes[lane].append(_button(segment, duration_s, colors, str(label(segment)), said))
        stops[lane] = float(segment["stop_s"])
    shown = html.escape(name)
    tracks = "".join(f'<div class="track">{"".join(lane)}</div>' for lane in lanes)
    return f'<div class="row"><span class="name" title="{shown}">{shown}</span><div class="lanes">{tracks}</div></div>'


def _button(segment: Mapping[str, Any], duration_s: float, colors: Mapping[str, str], label: str, said: bool) -> str:
    left, width = (100 * float(time) / duration_s for time in (segment["start_s"], _length(segment)))
    unknown = segment["class_name"] == UNKNOWN
    color = colors.get(segment["class_name"], "transparent")
    style = f"left:{left:.3f}%;width:{width:.3f}%;background:{color}"
    tell = f' data-said="{html.escape(_said(segment))}"' if said and not unknown else ""
    return (
        f'<button {_times(segment)}{tell} class="{UNKNOWN if unknown else "known"}" style="{style}" '
        f'title="{html.escape(f"{_said(segment)}, {_span(segment)}")}">{html.escape(label)}</button>'
    )


def _times(segment: Mapping[str, Any]) -> str:
    return f'data-start="{float(segment["start_s"]):.4f}" data-stop="{float(segment["stop_s"]):.4f}"'


def _length(segment: Mapping[str, Any]) -> float:
    return float(segment["stop_s"]) - float(segment["start_s"])


def _said(segment: Mapping[str, Any]) -> str:
    return f"{who(tuple(segment['track_ids']))}: {segment['class_name']} {float(segment['score']):.2f}"


def _span(segment: Mapping[str, Any]) -> str:
    return f"{clock(float(segment['start_s']))} to {clock(float(segment['stop_s']))}"


# --- scores over time --------------------------------------------------------------------------------------------


def _charts(timelines: Sequence[Mapping[str, Any]], duration_s: float, colors: Mapping[str, str]) -> str:
    if not timelines:
        return ""
    charts = "".join(_chart(timeline, duration_s, colors) for timeline in timelines)
    shown = " open" if len(timelines) <= OPEN_CHARTS else ""
    return f"<details{shown}><summary><h3>Scores over time</h3></summary>{charts}</details>"


def _chart(timeline: Mapping[str, Any], duration_s: float, colors: Mapping[str, str]) -> str:
    times = np.asarray(timeline["start_s"], float) + float(timeline["step_s"]) / 2
    scores = {name: np.asarray(values, float) for name, values in timeline["scores"].items()}
    best = sorted(scores, key=lambda name: -float(scores[name].sum()))[:LINES]
    own = {UNKNOWN: GREY}  # a class keeps its colour, unless another in this chart has it
    for name in best:
        free = (color for color in (colors.get(name), *COLORS) if color and color not in own.values())
        own.setdefault(name, next(free))
    breaks = np.flatnonzero(np.diff(times) > 1.5 * float(timeline["step_s"])) + 1
    lines = []
    for name in best:
        for part_times, part in zip(np.split(times, breaks), np.split(scores[name], breaks), strict=True):
            kept = slice(None, None, max(1, len(times) // POINTS))
            points = " ".join(
                f"{1000 * time / duration_s:.1f},{100 - 100 * score:.1f}"
                for time, score in zip(part_times[kept], part[kept], strict=True)
            )
            lines.append(f'<polyline points="{points}" stroke="{own[name]}"/>')
    legend = "".join(f'<span><i style="background:{own[name]}"></i>{html.escape(name)}</span>' for name in best)
    name = html.escape(who(tuple(timeline["track_ids"])))
    return (
        f'<div class="row"><span class="name">{name}</span><div class="chart"><svg viewBox="0 -4 1000 108" '
        f'preserveAspectRatio="none" role="img" aria-label="Scores of {name}">{"".join(lines)}</svg></div></div>'
        f'<p class="legend">{legend}</p>'
    )


# --- thumbnails --------------------------------------------------------------------------------------------------


def _card(prediction: Mapping[str, Any], layout: str) -> str:
    """A segment with the skeletons of its people."""
    return (
        f'<button class="card" {_times(prediction)}>{_skeletons(prediction["people"], layout)}'
        f"<strong>{html.escape(str(prediction['class_name']))}</strong>"
        f"{html.escape(who(tuple(prediction['track_ids'])))}, {float(prediction['score']):.2f}<br>"
        f"<time>{_span(prediction)}</time></button>"
    )


def _skeletons(people: Sequence[Mapping[str, Any]], layout: str) -> str:
    known = LAYOUTS.get(layout)
    poses = []
    for person in people:
        joints = np.asarray(person["keypoint"], float)
        if joints.shape[1] == 3:
            joints = joints * (1, -1, 1)  # y is up
        score = person["keypoint_score"]
        seen = joints.any(axis=1) & (np.ones(len(joints), bool) if score is None else np.asarray(score) >= MIN_SCORE)
        poses.append((joints[:, :2], seen))
    shown = np.concatenate([joints[seen] for joints, seen in poses]) if poses else np.zeros((0, 2))
    if known is None or not len(shown):
        return "<svg></svg>"
    low, high = shown.min(axis=0), shown.max(axis=0)
    scale = 100 / max(*(high - low), 1e-6)
    width, height = (high - low) * scale
    lines = []
    for joints, seen in poses:
        for a, b, (blue, green, red) in bones(known):
            if seen[a] and seen[b]:
                (x1, y1), (x2, y2) = (joints[[a, b]] - low) * scale
                color = f"rgb({red},{green},{blue})"
                lines.append(f'<polyline points="{x1:.1f},{y1:.1f} {x2:.1f},{y2:.1f}" stroke="{color}"/>')
    back = "".join(line.split(" stroke=")[0] + "/>" for line in lines)
    return (
        f'<svg viewBox="-6 -6 {width + 12:.1f} {height + 12:.1f}" aria-hidden="true">'
        f'<g stroke="#223" stroke-width="6">{back}</g><g stroke-width="3.4">{"".join(lines)}</g></svg>'
    )
