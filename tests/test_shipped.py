"""Weights that come with skelact, and what is taken where the published ones are out of reach."""

from __future__ import annotations

import io
import json
import socket
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner
from filelock import FileLock

import skelact.pose
from skelact import shipped as shipping
from skelact.cli import main
from skelact.errors import SkelactError
from skelact.files import sha256_of
from skelact.pose import choose_pose_model
from skelact.tracking import Tracker
from skelact.weights import YOLO26N_POSE, fetch, offline, resolve, weights_folder


def archive(content: bytes) -> bytes:
    """As torch writes its files."""
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w") as members:
            members.writestr("data", content)
        return file.getvalue()


PUBLISHED = archive(b"what ultralytics publishes" * 1000)
JUNK = b"<html>log in</html>"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installation with ``tiny``, two streams and ``skelact-pose``, an empty cache, and no mirror."""
    folder = tmp_path / "shipped"
    folder.mkdir()
    for name in ("joint.safetensors", "bone.safetensors", "skelact-pose.pt"):
        (folder / name).write_bytes(name.encode())
    (folder / "tiny.md").write_text("# tiny\n\nTrained on nothing much.")
    index = {
        "tiny": {
            "kind": "action",
            "class_names": ["wave", "walk"],
            "streams": {"tiny-joint": 2, "tiny-bone": 1},
            "card": "tiny.md",
        },
        "tiny-joint": {"kind": "action", "file": "joint.safetensors", "stream": "joint", "layout": "coco"},
        "tiny-bone": {"kind": "action", "file": "bone.safetensors", "stream": "bone", "layout": "coco"},
        "skelact-pose": {"kind": "pose", "file": "skelact-pose.pt", "layout": "coco"},
    }
    for row in index.values():
        if "file" in row:
            row["sha256"] = sha256_of(folder / str(row["file"]))
    (folder / "index.json").write_text(json.dumps(index))
    monkeypatch.setattr(shipping, "FOLDERS", (folder,))
    monkeypatch.setenv("SKELACT_WEIGHTS", str(tmp_path / "cache"))
    monkeypatch.delenv("SKELACT_WEIGHTS_URL", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr("skelact.weights.PATIENCE_S", 0.5)
    shipping.shipped.cache_clear()
    yield folder
    shipping.shipped.cache_clear()


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A mirror that serves the published pose model, or stops after half of it where told ``hang``."""
    manner = ["serve"]
    closing = threading.Event()

    class Request(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            if manner[0] in ("junk", "cut"):  # of no length that is told
                self.end_headers()
                self.wfile.write(JUNK if manner[0] == "junk" else PUBLISHED[:-9])
                return
            self.send_header("Content-Length", str(len(PUBLISHED)))
            self.end_headers()
            self.wfile.write(PUBLISHED[: len(PUBLISHED) // 2])
            if manner[0] == "hang":
                closing.wait(20)
            else:
                self.wfile.write(PUBLISHED[len(PUBLISHED) // 2 :])

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Request)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("SKELACT_WEIGHTS_URL", f"http://127.0.0.1:{server.server_port}")
    yield manner
    closing.set()
    server.shutdown()
    server.server_close()


def test_a_shipped_name_is_files_with_weights_of_their_scores(here: Path) -> None:
    found = resolve("tiny")
    assert [(model.path, model.weight) for model in found] == [
        (here / "joint.safetensors", 2.0),
        (here / "bone.safetensors", 1.0),
    ]


def test_a_shipped_file_that_was_changed_is_refused(here: Path) -> None:
    (here / "bone.safetensors").write_bytes(b"other")
    with pytest.raises(SkelactError, match=r"bone.safetensors: expected sha256 .*install skelact anew"):
        resolve("tiny")
    (here / "bone.safetensors").unlink()
    with pytest.raises(SkelactError, match=r"bone.safetensors: missing"):
        resolve("tiny")


def test_a_pose_model_is_no_classifier_and_the_other_way_round() -> None:
    with pytest.raises(SkelactError, match="give it as --pose-model"):
        resolve("skelact-pose")
    with pytest.raises(SkelactError, match="give it as --model"):
        skelact.pose.PoseModel("tiny")


def test_the_published_pose_model_is_taken_where_it_can_be_had(publisher: list[str]) -> None:
    name, why = choose_pose_model("auto")
    assert (name, why) == ("yolo26n-pose.pt", "the published weights were downloaded")
    assert (weights_folder() / "yolo26n-pose.pt").read_bytes() == PUBLISHED
    assert choose_pose_model("auto") == ("yolo26n-pose.pt", "the published weights are in the cache")


@pytest.mark.parametrize("manner", ["junk", "cut"])
def test_what_is_not_whole_is_not_kept(publisher: list[str], manner: str) -> None:
    publisher[0] = manner
    name, why = choose_pose_model("auto")
    assert name == "skelact-pose"
    assert "the content is not what was published" in str(why)
    assert not list(weights_folder().glob("*.pt*part")) + list(weights_folder().glob("*.pt"))
    publisher[0] = "serve"
    assert choose_pose_model("auto")[0] == "yolo26n-pose.pt"


def test_a_damaged_file_in_the_cache_is_fetched_anew(publisher: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    choose_pose_model("auto")
    path = weights_folder() / "yolo26n-pose.pt"
    path.write_bytes(JUNK)
    with monkeypatch.context() as context:
        context.setenv("SKELACT_OFFLINE", "1")
        assert choose_pose_model("auto")[0] == "skelact-pose"
    assert choose_pose_model("auto") == ("yolo26n-pose.pt", "the published weights were downloaded")
    assert path.read_bytes() == PUBLISHED


def test_damage_within_a_file_is_found_and_the_rest_of_another_is_not_gone_on_with(publisher: list[str]) -> None:
    weights_folder().mkdir(parents=True)
    path = weights_folder() / "yolo26n-pose.pt"
    path.write_bytes(PUBLISHED[:2000] + bytes(2000) + PUBLISHED[4000:])
    path.with_name("yolo26n-pose.pt.part").write_bytes(JUNK)
    assert choose_pose_model("auto") == ("yolo26n-pose.pt", "the published weights were downloaded")
    assert path.read_bytes() == PUBLISHED


def test_a_cache_that_cannot_be_read_is_no_reason_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, **options: bool) -> bool:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "is_file", refuse)
    monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.setattr(skelact.pose, "shipped", lambda: {"skelact-pose": None})
    assert choose_pose_model("auto")[0] == "skelact-pose"


def test_a_pose_model_that_is_named_comes_from_the_mirror_and_is_kept(publisher: list[str]) -> None:
    with pytest.raises(SkelactError, match=r"yolo11n-pose \(.*yolo11n-pose.pt\): expected a YOLO"):  # no real weights
        skelact.pose.PoseModel("yolo11n-pose")
    assert (weights_folder() / "yolo11n-pose.pt").read_bytes() == PUBLISHED


def test_what_ships_need_not_be_fetched() -> None:
    result = CliRunner().invoke(main, ["weights", "fetch", "tiny"])
    assert (result.exit_code, result.stderr) == (0, "tiny: ships with skelact, nothing to fetch\n")


def test_the_published_pose_model_can_be_fetched_ahead(publisher: list[str]) -> None:
    runner = CliRunner()
    assert runner.invoke(main, ["weights", "fetch", "yolo26n-pose.pt"]).exit_code == 0
    path = weights_folder() / "yolo26n-pose.pt"
    assert runner.invoke(main, ["weights", "path", "yolo26n-pose.pt"]).stdout == f"{path}\n"
    assert "a pose model" in runner.invoke(main, ["weights", "show", "yolo26n-pose.pt"]).stdout
    with pytest.raises(SkelactError, match="give it as --pose-model"):
        resolve("yolo26n-pose.pt")
    path.write_bytes(JUNK)
    with pytest.raises(SkelactError, match=r"is damaged; remove it and run: skelact weights fetch yolo26n-pose.pt"):
        fetch("yolo26n-pose.pt")


def test_two_programs_do_not_write_one_file(publisher: list[str]) -> None:
    weights_folder().mkdir(parents=True)
    with FileLock(weights_folder() / "yolo26n-pose.pt.lock"):
        name, why = choose_pose_model("auto")
    assert name == "skelact-pose"
    assert "another program is at it" in str(why)


def test_weights_in_the_working_folder_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SKELACT_OFFLINE", "1")
    Path("yolo26n-pose.pt").write_bytes(PUBLISHED)
    assert choose_pose_model("auto") == ("yolo26n-pose.pt", "the weights lie in the working folder")
    Path("yolo26n-pose.pt").write_bytes(JUNK)
    assert choose_pose_model("auto")[0] == "skelact-pose"


def test_a_network_that_hangs_costs_its_patience_and_no_more(publisher: list[str]) -> None:
    publisher[0] = "hang"
    start = time.monotonic()
    name, why = choose_pose_model("auto")
    assert time.monotonic() - start < 3
    assert name == "skelact-pose"
    assert why is not None
    assert "nothing came for 0.5 s" in why
    assert not (weights_folder() / "yolo26n-pose.pt").exists()


def test_a_server_that_accepts_and_never_answers_costs_no_more_either(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("SKELACT_WEIGHTS_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        assert choose_pose_model("auto")[0] == "skelact-pose"
        assert 0.4 < time.monotonic() - start < 3
        for named in (lambda: fetch("ntu60-2d-joint"), lambda: skelact.pose.PoseModel("yolo11n-pose.pt")):
            start = time.monotonic()
            with pytest.raises(SkelactError, match=r"nothing came for 0.5 s"):
                named()
            assert time.monotonic() - start < 3


def test_offline_touches_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("SKELACT_OFFLINE", "1")
    name, why = choose_pose_model("auto")
    assert name == "skelact-pose"
    assert why is not None
    assert "(offline)" in why
    with pytest.raises(SkelactError, match=r"cannot download ntu60-2d-joint .*offline"):
        fetch("ntu60-2d-joint")
    with pytest.raises(SkelactError, match=r"yolo26n-pose.pt: not in .*offline"):
        skelact.pose.PoseModel("yolo26n-pose.pt")
    with pytest.raises(SkelactError, match=r"at an address, and offline"):
        skelact.pose.PoseModel("https://example.org/x-pose.pt")
    tracker = tmp_path / "reid.yaml"
    tracker.write_text("tracker_type: botsort\nwith_reid: true\nmodel: yolo26n-cls.pt\ntrack_buffer: 30\n")
    with pytest.raises(SkelactError, match=r"yolo26n-cls.pt is no file here, and offline"):
        Tracker(str(tracker))


def test_torchscript_is_not_run_for_poses(tmp_path: Path) -> None:
    """It can write files while it is loaded."""
    model = tmp_path / "pose.torchscript"
    model.write_bytes(b"whatever it holds")
    with pytest.raises(SkelactError, match=r"pose.torchscript: TorchScript may run code of its own"):
        skelact.pose.PoseModel(model)
    tracker = tmp_path / "reid.yaml"
    tracker.write_text(f"tracker_type: botsort\nwith_reid: true\nmodel: {model}\ntrack_buffer: 30\n")
    with pytest.raises(SkelactError, match=r"is TorchScript, which may run code of its own"):
        Tracker(str(tracker))


def test_a_model_that_is_named_never_gives_way_to_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKELACT_OFFLINE", "1")
    assert choose_pose_model("yolo26n-pose.pt") == ("yolo26n-pose.pt", None)
    with pytest.raises(SkelactError, match="offline"):
        resolve("ntu60-2d-joint")


@pytest.mark.parametrize(
    ("value", "expected"), [("1", True), ("yes", True), (" 0", False), ("off", False), ("", False)]
)
def test_the_environment_says_offline_in_words_too(monkeypatch: pytest.MonkeyPatch, value: str, expected: bool) -> None:
    monkeypatch.setenv("SKELACT_OFFLINE", value)
    assert offline() == expected


def test_an_installation_without_its_weights_says_so(here: Path) -> None:
    (here / "index.json").unlink()
    shipping.shipped.cache_clear()
    with pytest.raises(SkelactError, match=r"weights that come with skelact are missing .*install it anew"):
        resolve("skelact-daily")


def test_the_option_offline_holds_for_its_command_only(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["predict", str(tmp_path / "no.mp4"), "--model", "ntu60-2d-joint", "--offline"])
    assert result.exit_code == 1
    assert "offline" in result.output
    assert not offline()


def test_weights_list_path_and_show_know_what_ships(here: Path) -> None:
    runner = CliRunner()
    listed = runner.invoke(main, ["weights", "list"]).stdout
    assert [line.split()[:1] for line in listed.splitlines()[1:4]] == [["tiny"], ["tiny-joint"], ["tiny-bone"]]
    assert "2 joint + 1 bone" in listed
    assert "ntu60-2d-joint" in listed
    rows = json.loads(runner.invoke(main, ["weights", "list", "--json", "-"]).stdout)["models"]
    assert [row["shipped"] for row in rows][:5] == [True, True, True, True, False]
    assert runner.invoke(main, ["weights", "path", "tiny-bone"]).stdout.strip() == str(here / "bone.safetensors")
    shown = runner.invoke(main, ["weights", "show", "tiny"]).stdout
    assert "2 classes: wave, walk" in shown
    assert "Trained on nothing much." in shown
    published = runner.invoke(main, ["weights", "show", "ntu60-2d-bone"]).stdout
    assert "hand waving" in published
    assert "92.30" in published


def test_the_published_pose_model_is_the_one_that_ultralytics_would_download() -> None:
    from skelact.yolo import load_ultralytics

    load_ultralytics()
    from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES

    assert YOLO26N_POSE.file_name in GITHUB_ASSETS_NAMES
