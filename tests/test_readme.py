"""The README's commands exist as they stand there, and its how-to works from a folder of videos to a prediction."""

from __future__ import annotations

import ast
import inspect
import json
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click
import drawn_people
import pytest

import skelact
from skelact.cli import main

ROOT = Path(__file__).parents[1]
PAGES = {
    path: path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "weights").glob("*.md")))
}
README = PAGES[ROOT / "README.md"]
COMMANDS = [
    line.strip().removeprefix("skelact ")
    for path, page in PAGES.items()
    if path.parent.name != "weights"  # whose recipes are for a shell
    for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    for line in block.splitlines()
    if line.strip().startswith("skelact ")
]


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 10


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_is_understood(command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every option and argument is one of the command's; nothing is run."""
    monkeypatch.chdir(tmp_path)
    current: click.Command = main
    context: click.Context | None = None
    words = shlex.split(command, comments=True)
    while isinstance(current, click.Group):
        context = click.Context(current, parent=context, info_name=current.name, **current.context_settings)
        found = current.get_command(context, words[0])
        assert found is not None, f"no command {words[0]}"
        current, words = found, words[1:]
    with current.make_context(current.name, words, parent=context):
        pass  # closed again, as --offline holds as long as its command


def anchors(page: str) -> set[str]:
    """What GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.*)", page, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", PAGES[path])
    for target, anchor in links:
        page = (path.parent / target).resolve() if target else path
        assert page.exists(), target
        assert not anchor or anchor in anchors(page.read_text(encoding="utf-8")), f"{target}#{anchor}"


def test_every_command_is_in_the_readme() -> None:
    for name in main.commands:
        assert f"skelact {name}" in README, name


def calls(code: str) -> Iterator[tuple[str, ast.Call]]:
    """What of skelact is called in some Python, function by function."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call) and (found := re.fullmatch(r"skelact\.(\w+)", ast.unparse(node.func))):
            yield found[1], node


def is_understood(name: str, call: ast.Call) -> None:
    """Its arguments are the function's; nothing is run."""
    words = {word.arg: word.value for word in call.keywords if word.arg}
    inspect.signature(getattr(skelact, name)).bind(*call.args, **words)


def test_the_readme_s_python_is_understood() -> None:
    told = [found for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) for found in calls(block)]
    assert {name for name, _ in told} >= {"predict", "train", "test", "live"}
    for name, call in told:
        is_understood(name, call)


@pytest.mark.parametrize("name", [name for name in skelact.__all__ if inspect.isfunction(getattr(skelact, name))])
def test_every_function_s_docstring_has_an_example_and_names_all_arguments(name: str) -> None:
    function = getattr(skelact, name)
    doc = inspect.getdoc(function) or ""
    examples = re.findall(r"(?:^ {4}.*\n?)+", doc.partition("\nArgs:")[0].partition("\nRaises:")[0], re.MULTILINE)
    told = [found for example in examples for found in calls(textwrap.dedent(example))]
    assert name in {called for called, _ in told}
    for called, call in told:
        is_understood(called, call)
    arguments = inspect.signature(function).parameters
    assert [argument for argument in arguments if not re.search(rf"\b{argument}\b", doc)] == []
    assert "Raises:" in doc


@pytest.mark.shared
def test_from_a_folder_of_videos_to_a_prediction(shared: Path, tmp_path: Path) -> None:
    """The how-to "train on your own videos", on drawn people and with a real YOLO."""
    pytest.importorskip("openvino", reason="the shared pose model is an OpenVINO export")
    for motion in ("wave_both", "squat"):
        for k, person in enumerate(("anna", "ben", "carla", "dora", "emil", "new")):
            folder = tmp_path if person == "new" else tmp_path / "videos" / motion
            folder.mkdir(parents=True, exist_ok=True)
            name = f"new_{motion}.mp4" if person == "new" else f"{person}_1.mp4"
            drawn_people.save_video(folder / name, drawn_people.scene_of(motion, seed=k), 1.0, 15.0, (320, 240))
    pose_model = ["--pose-model", str(shared / "weights" / "yolov8n-pose_int8_openvino_model")]

    def skelact(*arguments: str) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            [sys.executable, "-m", "skelact", *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=900
        )
        assert result.returncode == 0, result.stderr
        return result

    skelact("extract-poses", "videos/", "--out", "mine.pkl", "--group-by", "/([^_]+)_", *pose_model)
    told = skelact("info", "mine.pkl", "--plot", "mine.png").stdout
    assert re.search(r"samples +10, 150 frames", told)
    assert re.search(r"5 +4 +1 +squat", told), "one person of five is for validation"
    assert (tmp_path / "mine.png").stat().st_size > 10_000
    small = shlex.split("--width 16 --epochs 12 --repeat 10 --batch-size 8 --clip-len 24 --lr 0.3")
    skelact("train", "mine.pkl", "--out", "runs/mine", *small)
    model = ["--model", "runs/mine/best.safetensors", "--clips", "1", "--unknown-below", "off"]
    for motion in ("squat", "wave_both"):
        result = json.loads(skelact("predict", f"new_{motion}.mp4", *model, *pose_model, "--json", "-").stdout)
        assert result["class_names"] == ["squat", "wave_both"]
        assert result["results"][0]["predictions"][0]["class_name"] == motion, "a person who was never seen"
