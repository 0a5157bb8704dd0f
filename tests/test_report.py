"""The page of a result: what it holds, and, in a real browser, that a click on a segment shows it in the video."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from skelact import report
from skelact.cli import main
from skelact.errors import SkelactError
from skelact.render import LIMB_COLORS
from skelact.report import write_report
from skelact.skeleton import COCO
from skelact.strip import clock
from skelact.video import VideoWriter
from skelact.writers import write_json

EVIL = "</script><script>alert(1)</script>\"'<img src=x onerror=alert(2)>"
CLASSES = ["walk", "shake hands", EVIL]
STAND = [[100 + 10 * (v % 3), 40 + 12 * v] for v in range(17)]


def prediction(start_s: float, stop_s: float, class_name: str, *track_ids: int) -> dict[str, Any]:
    return {
        "start_s": start_s,
        "stop_s": stop_s,
        "track_ids": list(track_ids),
        "class_name": class_name,
        "score": 0.8,
        "top_k": [{"class_name": CLASSES[0], "score": 0.8}],
        "scores": [0.8, 0.1, 0.1],
        "people": [
            {
                "track_id": track_id,
                "time_s": (start_s + stop_s) / 2,
                "keypoint": [[x + 60 * track_id, y] for x, y in STAND],
                "keypoint_score": [0.9] * 17,
            }
            for track_id in track_ids
        ],
    }


def result(source: str, **changes: Any) -> dict[str, Any]:
    """One of 12 s: person 1 is not seen from 4 to 6 s, and does something with person 2."""
    times = [k / 2 for k in range(24) if not 8 <= k < 12]
    return {
        "source": source,
        "error": None,
        "warnings": [],
        "granularity": "timeline",
        "video": {"height": 180, "width": 320, "fps": 10.0, "num_frames": 120},
        "poses": {"layout": "coco"},
        "tracks": [{"track_id": 1}, {"track_id": 2}],
        "predictions": [
            prediction(0.0, 4.0, "walk", 1),
            prediction(6.0, 9.5, EVIL, 1),
            prediction(9.5, 12.0, "unknown", 1),
            prediction(2.0, 8.0, "shake hands", 1, 2),
        ],
        "timelines": [
            {
                "track_ids": [1],
                "step_s": 0.5,
                "start_s": times,
                "scores": {"walk": [0.8] * 8 + [0.1] * 12, EVIL: [0.1] * 8 + [0.8] * 12},
            }
        ],
        **changes,
    }


def save(path: Path, *results: dict[str, Any]) -> Path:
    models = [{"name": "my model"}]
    content = {
        "schema_version": 1,
        "versions": {"skelact": "0.1.0"},
        "models": models,
        "class_names": CLASSES,
        "results": results,
    }
    write_json(content, str(path))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A video of 12 s, whose grey grows lighter, and its result, in a folder with a difficult name."""
    home = tmp_path / "a #1 & é"
    home.mkdir()
    with VideoWriter(home / "a b%20?.mp4", (180, 320), 10.0) as writer:
        for index in range(120):
            writer.write(np.full((180, 320, 3), 2 * index, np.uint8), index / 10)
    save(home / "a.json", result("a b%20?.mp4"))
    return home


def page_of(path: Path, **options: Any) -> str:
    out = path.with_suffix(".html")
    write_report(path, out, **options)
    return out.read_text(encoding="utf-8")


def skelact_with(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="skelact")


# --- what the page holds -----------------------------------------------------------------------------------------


def test_a_page_has_everything_once(folder: Path) -> None:
    page = page_of(folder / "a.json")
    rows = re.findall(r'<span class="name" title="([^"]*)">', page)
    escaped = html.escape(EVIL)
    assert rows == ["Person 1", "Persons 1, 2", "walk", escaped, "shake hands"], "by person, then by action"
    assert page.count('class="card"') == 4
    assert page.count("<polyline") > 60, "skeletons, and scores with a gap"
    assert 'src="a%20b%2520%3F.mp4"' in page
    assert "my model" in page
    assert "0:12.0, 320 x 180, 2 persons" in page


BUTTON = re.compile(r'<button ([^>]*) class="([^"]*)" style="([^"]*)" title="([^"]*)">([^<]*)</button>')


def test_segments_lie_where_they_belong(folder: Path) -> None:
    backwards = list(reversed(result("")["predictions"]))
    page = page_of(save(folder / "b.json", result("a b%20?.mp4", predictions=backwards)))
    by_person, by_action = page.split("By action")
    buttons = {title: (kind, style, said) for _, kind, style, title, said in BUTTON.findall(by_person)}
    evil = html.escape(EVIL)
    places = {
        "Person 1: walk 0.80, 0:00.0 to 0:04.0": ("known", "left:0.000%;width:33.333%", "walk"),
        f"Person 1: {evil} 0.80, 0:06.0 to 0:09.5": ("known", "left:50.000%;width:29.167%", evil),
        "Person 1: unknown 0.80, 0:09.5 to 0:12.0": ("unknown", "left:79.167%;width:20.833%", "unknown"),
        "Persons 1, 2: shake hands 0.80, 0:02.0 to 0:08.0": ("known", "left:16.667%;width:50.000%", "shake hands"),
    }
    found = {title: (kind, style.partition(";background")[0], said) for title, (kind, style, said) in buttons.items()}
    assert found == places
    assert next(iter(found)).startswith("Person 1: walk"), "in order of time"
    backgrounds = [style.rpartition(":")[2] for _, style, _ in buttons.values()]
    assert len(set(backgrounds)) == 4
    assert backgrounds[2] == "transparent", "what is unknown"
    assert [said for *_, said in BUTTON.findall(by_action)] == ["1+2", "1", "1"], "who it is that does it"
    told = re.findall(r'data-start="([^"]*)" data-stop="([^"]*)" data-said="([^"]*)"', page)
    assert len(told) == 3, "what is done now is told once, not by person and by action"
    assert ("2.0000", "8.0000", "Persons 1, 2: shake hands 0.80") in told


def test_a_chart_has_the_likeliest_classes_by_time(folder: Path) -> None:
    names = [f"class {k}" for k in range(8)]
    scores = {name: [0.1 * k] * 4 for k, name in enumerate(names)}
    chart = {"track_ids": [2], "step_s": 0.5, "start_s": [0.0, 0.5, 6.0, 6.5], "scores": scores}
    page = page_of(save(folder / "b.json", result("a b%20?.mp4", timelines=[chart])))
    svg = re.search(r'aria-label="Scores of Person 2">(.*?)</svg>', page)
    assert svg
    lines = re.findall(r'points="([^"]*)"', svg[1])
    assert lines[:2] == ["20.8,30.0 62.5,30.0", "520.8,30.0 562.5,30.0"], "0.7 in the middles of the steps, and a gap"
    assert len(lines) == 12
    assert re.findall(r"</i>([^<]*)</span>", page) == names[:1:-1], "the six likeliest"
    long = {**chart, "start_s": [k / 2 for k in range(9000)], "scores": {"walk": [0.5] * 9000}}
    page = page_of(save(folder / "b.json", result("a b%20?.mp4", timelines=[long] * 9)))
    assert "<details><summary><h3>Scores" in page, "many are shown on demand"
    assert len(page) < 9 * 1500 * 20, "and not finer than a screen"
    assert "<details open>" in page_of(folder / "a.json")


def points_of(page: str) -> list[list[tuple[float, float]]]:
    """The bones of the first card, from where to where."""
    bones = re.search(r'stroke-width="3.4">(.*?)</g>', page)
    assert bones
    lines = re.findall(r'points="([^"]*)"', bones[1])
    return [[tuple(map(float, point.split(","))) for point in line.split()] for line in lines]  # type: ignore[misc]


def test_a_skeleton_stands_upright_without_what_is_unsure(folder: Path) -> None:
    told = prediction(0.0, 4.0, "walk", 1)
    person = told["people"][0]
    wrist = COCO.joints.index("left_wrist")
    person["keypoint"][COCO.joints.index("nose")] = [110, 0]
    whole = points_of(page_of(save(folder / "b.json", result("a b%20?.mp4", predictions=[told]))))
    person["keypoint_score"][wrist] = 0.29
    page = page_of(save(folder / "b.json", result("a b%20?.mp4", predictions=[told])))
    assert len(points_of(page)) == len(whole) - 1
    lowest, highest = (each(y for line in whole for _, y in line) for each in (max, min))
    assert 0 <= highest < 0.1 * lowest
    left = "rgb({2},{1},{0})".format(*LIMB_COLORS["left"])
    assert page.count(left) == 2 + 1, "the leg's bones, and the upper arm"
    spatial = [[x / 100, 2 - y / 100, 3.0] for x, y in person["keypoint"]]  # y is up
    told["people"] = [{**person, "keypoint": spatial, "keypoint_score": None}]
    upright = points_of(page_of(save(folder / "b.json", result("poses.pkl#a", predictions=[told]))))
    assert np.allclose(upright, whole, atol=0.11)


def test_a_page_elsewhere_finds_the_video(folder: Path) -> None:
    late = {**result("")["video"], "start_s": 2.5}
    beyond = [prediction(0.0, 30.0, "walk", 1)]
    save(folder / "a.json", result("a b%20?.mp4", video=late, predictions=beyond))
    out = folder / "pages" / "a.html"
    write_report(folder / "a.json", out)
    page = out.read_text(encoding="utf-8")
    assert 'src="../a%20b%2520%3F.mp4"' in page
    assert 'data-duration="30.000000" data-offset="2.500000"' in page, "the file's clock begins before the picture"
    write_report(folder / "a.json", out, video=folder / "a b%20?.mp4")
    assert 'data-offset="0.000000"' in out.read_text(encoding="utf-8"), "as the video that is given has it"


def test_those_who_do_the_same_at_once_are_all_seen(folder: Path) -> None:
    same = [prediction(0.0, 4.0, "walk", 1), prediction(1.0, 5.0, "walk", 2), prediction(4.0, 6.0, "walk", 1)]
    hug = prediction(0.0, 6.0, "shake hands", 1, 2)
    page = page_of(save(folder / "b.json", result("a b%20?.mp4", predictions=[hug, *same])))
    by_person, by_action = page.split("By action")
    assert re.findall(r'title="(Person[^":]*)">', by_person) == ["Person 1", "Person 2", "Persons 1, 2"]
    _, lanes = re.findall(r'<div class="lanes">(.*?)</div></div>', by_action)
    assert [lane.count("<button") for lane in lanes.split('<div class="track">')[1:]] == [2, 1]


def test_each_line_of_a_chart_has_its_own_colour(folder: Path) -> None:
    names = [f"class {k}" for k in range(26)]
    answered = [prediction(k, k + 1, name, 1) for k, name in enumerate(names)]
    chart = {"track_ids": [1], "step_s": 0.5, "start_s": [0, 0.5]}
    scores = {name: [0.2, 0.2] for name in (names[0], names[10], names[20], "unknown", names[1], names[3])}
    one = result("a b%20?.mp4", predictions=answered, timelines=[{**chart, "scores": scores}])
    page = page_of(save(folder / "b.json", one))
    lines = re.findall(
        r'<polyline points="[^"]*" stroke="([^"]*)"/>', page.split("Scores over time")[1].split("What")[0]
    )
    assert len(set(lines)) == len(lines) == 6
    legend = re.findall(r'<i style="background:([^"]*)"></i>unknown', page)
    assert legend == ["#99a0aa"]


def test_what_comes_from_files_is_escaped(folder: Path) -> None:
    evil = result(EVIL, warnings=[EVIL])
    path = save(folder / "evil.json", evil, {"source": EVIL, "error": EVIL, "warnings": []})
    content = json.loads(path.read_text(encoding="utf-8"))
    write_json({**content, "models": [{"name": EVIL}], "versions": {"skelact": EVIL}}, str(path))
    page = page_of(path)
    assert page.count("<script") == 1
    assert "<img" not in page
    assert html.escape(EVIL) in page


def test_nothing_is_loaded_from_a_network(folder: Path) -> None:
    page = page_of(folder / "a.json")
    assert "http" not in page.replace("http-equiv", "")
    assert "default-src 'none'" in page


def test_a_video_can_be_another_or_inside(folder: Path) -> None:
    shutil.copy(folder / "a b%20?.mp4", folder / "overlay.mp4")
    assert 'src="overlay.mp4"' in page_of(folder / "a.json", video=folder / "overlay.mp4")
    shutil.copy(folder / "overlay.mp4", folder / "second.mp4")
    two = save(folder / "two.json", result("clips/overlay.avi"), result("second.mp4"))
    assert re.findall(r'src="([^"]*)"', page_of(two, video=folder)) == ["overlay.mp4", "second.mp4"]
    moved = [result("a.avi", overlay=f"/elsewhere/videos/{place}/a.mp4") for place in ("x", "y")]
    for place in ("x", "y"):
        (folder / place).mkdir()
        shutil.copy(folder / "overlay.mp4", folder / place / "a.mp4")
    page = page_of(save(folder / "two.json", *moved), video=folder)
    assert re.findall(r'src="([^"]*)"', page) == ["x/a.mp4", "y/a.mp4"]
    page = page_of(folder / "a.json", embed=True)
    assert 'src="data:video/mp4;base64,' in page
    assert len(page) > (folder / "overlay.mp4").stat().st_size * 4 / 3


def test_a_video_on_another_drive_is_at_its_full_address(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def relpath(path: Path, start: Path) -> str:
        raise ValueError("path is on mount 'D:', start on mount 'C:'")  # as on Windows

    monkeypatch.setattr(os.path, "relpath", relpath)
    assert f'src="{(folder / "a b%20?.mp4").as_uri()}"' in page_of(folder / "a.json", video=folder / "a b%20?.mp4")


def test_poses_without_a_video_have_a_page_too(folder: Path) -> None:
    page = page_of(save(folder / "b.json", result("poses.pkl#S001")))
    assert "<video" not in page
    assert page.count('class="card"') == 4


def test_an_empty_result_and_one_that_failed(folder: Path) -> None:
    empty = result("a b%20?.mp4", predictions=[], timelines=[], tracks=[], warnings=["found nobody"])
    failed = {"source": "gone.mp4", "error": "gone.mp4: no such file", "warnings": []}
    page = page_of(save(folder / "c.json", empty, failed))
    assert "found nobody" in page
    assert "gone.mp4: no such file" in page


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file; skelact predict VIDEO --json"),
        ("no json", "found Expecting value"),
        ("[1]", "with schema_version 1, found none"),
        ('{"schema_version": 7, "results": []}', "with schema_version 1, found 7"),
        ('{"schema_version": 1, "results": [{}], "class_names": []}', "lacks or garbles 'source'"),
    ],
)
def test_what_is_no_result_is_told(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "a.json"
    if text is not None:
        path.write_text(text)
    said = skelact_with("report", path, "--out", tmp_path / "a.html")
    assert said.exit_code == 1
    (line,) = said.stderr.splitlines()
    assert message in line
    assert not (tmp_path / "a.html").exists()


def test_a_video_that_is_missing_or_large_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SkelactError, match=r"video nope.mp4: no such file; --video takes the overlay"):
        page_of(folder / "a.json", video="nope.mp4")
    gone = save(folder / "gone.json", result("gone.mp4"))
    with pytest.raises(SkelactError, match=r"gone.mp4: no such file to embed; give the video with --video"):
        page_of(gone, embed=True)
    monkeypatch.setattr(report, "MAX_EMBEDDED", 1000)
    with pytest.raises(SkelactError, match=r"leave out --embed, and put the video"):
        page_of(folder / "a.json", embed=True)
    monkeypatch.undo()
    (folder / "secret.txt").write_text("nobody else's business")
    with pytest.raises(SkelactError, match=r"secret.txt: "):
        page_of(save(folder / "theirs.json", result("secret.txt")), embed=True)
    said = skelact_with("report", folder / "a.json", "--out", folder / "a.json")
    assert "the output would replace its source" in said.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="file names are Unicode elsewhere")
def test_a_video_whose_name_is_no_unicode(folder: Path) -> None:
    name = os.fsdecode(b"caf\xe9.mp4")
    (folder / name).touch()
    assert "caf%E9.mp4" in page_of(save(folder / "odd.json", result(name)))


def test_times_are_read_easily() -> None:
    assert [clock(time_s) for time_s in (0, 59.96, 61.25, 3723.4)] == ["0:00.0", "1:00.0", "1:01.2", "1:02:03.4"]


# --- in a browser ------------------------------------------------------------------------------------------------

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
VIEWPORT = {"width": 1100, "height": 900}
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    """A page of a real Chromium with a fresh profile; it fails the test if the page asks for anything remote."""
    if CHROMIUM is None:
        pytest.skip("needs chromium (on Debian: apt install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="one of skelact's dev dependencies")
    asked: list[str] = []
    troubles: list[str] = []
    with playwright.sync_playwright() as started:
        context = started.chromium.launch_persistent_context(
            str(tmp_path / "profile"),
            executable_path=CHROMIUM,
            args=list(FLAGS),
            viewport=VIEWPORT,
        )
        page = context.pages[0]
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("dialog", lambda dialog: (troubles.append("a dialog"), dialog.dismiss()))
        yield page
        context.close()
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert troubles == []


def wait_until(browser: Any, condition: str) -> None:
    """Ask from outside again and again: the page's policy lets nobody evaluate text inside."""
    for _ in range(200):
        if browser.evaluate(condition):
            return
        time.sleep(0.05)
    raise AssertionError(f"never came true: {condition}")


def open_page(browser: Any, path: Path) -> None:
    browser.goto(path.as_uri())
    wait_until(browser, "document.querySelector('video').readyState >= 1")


def time_of(browser: Any) -> float:
    wait_until(browser, "!document.querySelector('video').seeking")
    return float(browser.evaluate("document.querySelector('video').currentTime"))


def test_a_source_that_failed_takes_nothing_from_the_next(browser: Any, folder: Path) -> None:
    failed = {"source": "bad.mp4", "error": "bad.mp4: no video"}
    page_of(save(folder / "a.json", failed, result("a b%20?.mp4")))
    open_page(browser, folder / "a.html")
    browser.get_by_title("Persons 1, 2: shake hands 0.80").first.click()
    assert time_of(browser) == pytest.approx(2.0)
    assert browser.locator(".current b").count() == 2


@pytest.mark.parametrize("embed", [False, True])
def test_a_click_on_a_segment_shows_it(browser: Any, folder: Path, embed: bool) -> None:
    page_of(folder / "a.json", embed=embed)
    open_page(browser, folder / "a.html")
    assert browser.evaluate("document.querySelector('video').duration") == pytest.approx(12.0, abs=0.1)
    browser.get_by_title("Persons 1, 2: shake hands 0.80").first.click()
    assert time_of(browser) == pytest.approx(2.0)
    assert browser.locator(".current b").all_inner_texts() == ["Person 1: walk 0.80", "Persons 1, 2: shake hands 0.80"]
    browser.locator(".card").nth(1).click()
    assert time_of(browser) == pytest.approx(6.0)
    assert EVIL in browser.locator(".current b").first.inner_text()
    assert browser.locator(".unplayable").is_hidden()


def test_a_click_on_the_scores_shows_that_time(browser: Any, folder: Path) -> None:
    page_of(folder / "a.json")
    open_page(browser, folder / "a.html")
    chart = browser.locator(".chart").first
    width = chart.bounding_box()["width"]
    chart.click(position={"x": width * 0.75, "y": 40})
    assert time_of(browser) == pytest.approx(9.0, abs=0.05)


def test_the_keyboard_does_it_too(browser: Any, folder: Path) -> None:
    page_of(folder / "a.json")
    open_page(browser, folder / "a.html")
    browser.get_by_title("Persons 1, 2: shake hands 0.80").first.focus()
    browser.keyboard.press("Enter")
    assert time_of(browser) == pytest.approx(2.0)


def test_a_video_that_the_browser_cannot_play_is_told(browser: Any, folder: Path) -> None:
    (folder / "a b%20?.mp4").write_bytes(b"no video")
    page_of(folder / "a.json")
    browser.goto((folder / "a.html").as_uri())
    browser.wait_for_selector(".unplayable:not([hidden])")
    browser.locator(".card").first.click()
