"""The zoo against a server on loopback: what breaks on the way to a checkpoint, and what is left behind."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from skelact import weights as zoo
from skelact.cli_weights import weights as commands
from skelact.errors import SkelactError
from skelact.shipped import shipped
from skelact.skeleton import LAYOUTS

RESULTS_PAGE = Path(__file__).parents[2] / "shared" / "seed" / "stgcnpp-results.md"
SIZE = 300_000
HALF = SIZE // 2


class Publisher(ThreadingHTTPServer):
    """A web server with two checkpoints; it misbehaves once for each of ``answers``, then serves them."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), PublisherRequest)
        self.files = {"/zoo/walk.pth": os.urandom(SIZE), "/zoo/wave.pth": os.urandom(SIZE)}
        self.answers: list[str] = []
        self.requests: list[tuple[str, str | None]] = []  # (path, Range)
        self.hanging = threading.Event()
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def sha256(self, name: str) -> str:
        """The eight digits that publishers put into file names."""
        return hashlib.sha256(self.files[f"/zoo/{name}.pth"]).hexdigest()[:8]


class PublisherRequest(BaseHTTPRequestHandler):
    server: Publisher

    def do_GET(self) -> None:
        self.server.requests.append((self.path, self.headers["Range"]))
        answer = self.server.answers.pop(0) if self.server.answers else "normal"
        if answer.isdigit():
            return self.send_error(int(answer))
        content = self.server.files[self.path]
        if answer == "wrong":
            content = content[::-1]
        start = int(re.findall(r"\d+", self.headers["Range"])[0]) if self.headers["Range"] else 0
        if answer == "no-range":
            start = 0
        elif start >= len(content):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        half = (start + len(content)) // 2
        self.wfile.write(content[start:half])
        if answer == "drop":
            return None
        if answer == "reset":
            time.sleep(0.1)  # let the first half arrive
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return self.connection.close()
        if answer == "hang":
            self.server.hanging.set()
            self.server.closing.wait(20)
            return None
        if answer == "slow":
            time.sleep(0.5)
        if answer == "trickle":
            for k in range(half, len(content), 20_000):
                time.sleep(0.15)
                self.wfile.write(content[k : k + 20_000])
            return None
        self.wfile.write(content[half:])

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("SKELACT_WEIGHTS", str(folder))
    return folder


@pytest.fixture
def publisher(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    """The mirror of a zoo of ``walk``, ``wave`` and their fusion; nothing ships, and no waiting between tries."""
    server = Publisher()
    monkeypatch.setattr("skelact.shipped.FOLDERS", (tmp_path,))
    shipped.cache_clear()
    monkeypatch.setenv("SKELACT_WEIGHTS_URL", server.url + "/")
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(zoo, "ZOO", small_zoo(server))
    monkeypatch.setattr(zoo, "RETRY_DELAYS_S", (0.0, 0.0))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    shipped.cache_clear()
    server.closing.set()
    server.shutdown()
    server.server_close()


def small_zoo(server: Publisher) -> dict[str, zoo.PublishedModel | zoo.FusedModel]:
    singles = [
        zoo.PublishedModel(
            name=name,
            url=f"{zoo.PUBLISHER}/zoo/{name}.pth",
            sha256=server.sha256(name),
            stream=stream,
            layout="coco",
            class_names=("walk", "wave"),
            top1=90.0,
            source="here",
        )
        for name, stream in (("walk", "joint"), ("wave", "bone"))
    ]
    fused = zoo.FusedModel("both", (("walk", 2.0), ("wave", 1.0)), 92.0, "here")
    return {**{model.name: model for model in singles}, fused.name: fused}


def leftovers(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


def run_cli(*args: str) -> Any:
    return CliRunner().invoke(commands, args)


# The registry


def test_the_zoo_has_eight_streams_and_four_fusions_of_60_classes() -> None:
    singles = [model for model in zoo.ZOO.values() if isinstance(model, zoo.PublishedModel)]
    assert all(name == model.name for name, model in zoo.ZOO.items())
    assert len(zoo.ZOO) == 12
    assert {model.name for model in singles} == {
        f"ntu60-{dims}-{stream}" for dims in ("2d", "3d") for stream in ("joint", "bone", "joint-motion", "bone-motion")
    }
    assert len(set(zoo.NTU60_CLASSES)) == 60
    assert [zoo.NTU60_CLASSES[i] for i in (0, 42, 59)] == [
        "drink water",
        "falling",
        "walking apart from each other",
    ]
    for model in singles:
        assert model.class_names == zoo.NTU60_CLASSES
        assert model.layout in LAYOUTS
        assert model.file_name.removesuffix(".pth").endswith("-" + model.sha256[:8])
        assert len(model.sha256) >= 8


@pytest.mark.parametrize("dims", ["2d", "3d"])
def test_fusions_carry_the_published_weights(dims: str) -> None:
    def weights_of(name: str) -> dict[str, float]:
        return {model.stream: weight for model, weight in zoo.streams(f"ntu60-{dims}-{name}")}

    assert weights_of("two-stream") == {"joint": 1, "bone": 1}
    assert weights_of("four-stream") == {"joint": 2, "joint-motion": 1, "bone": 2, "bone-motion": 1}
    assert weights_of("bone") == {"bone": 1}


@pytest.mark.shared
@pytest.mark.skipif(not RESULTS_PAGE.exists(), reason=f"{RESULTS_PAGE} is missing")
def test_the_zoo_is_the_results_page() -> None:
    published: dict[str, tuple[float, str | None]] = {}
    for line in RESULTS_PAGE.read_text(encoding="utf-8").splitlines():
        if heading := re.match(r"### NTU60_XSub_(2D|3D)", line):
            dims = heading[1].lower()
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) > 5 and re.fullmatch(r"\d\d\.\d\d", cells[5]):
            url = re.search(r"\[ckpt\]\((.*?)\)", line)
            published[f"ntu60-{dims}-{cells[2]}"] = (float(cells[5]), url[1] if url else None)
    assert published == {name: (model.top1, getattr(model, "url", None)) for name, model in zoo.ZOO.items()}
    assert len([url for _, url in published.values() if url]) == 8


# Where files are


def test_the_cache_is_the_users_unless_the_environment_names_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKELACT_WEIGHTS", "~/models")
    assert zoo.weights_folder() == Path.home() / "models"
    monkeypatch.delenv("SKELACT_WEIGHTS")
    assert zoo.weights_folder().is_absolute()
    assert zoo.weights_folder().parts[-1] == "weights"
    assert "skelact" in zoo.weights_folder().parts


def test_a_file_put_there_by_hand_is_taken(publisher: Publisher, cache: Path) -> None:
    assert zoo.locate("walk") is None
    cache.mkdir()
    (cache / "walk.pth").write_bytes(publisher.files["/zoo/walk.pth"])
    assert zoo.locate("walk") == zoo.fetch("walk") == cache / "walk.pth"
    assert publisher.requests == []


def test_a_wrong_file_in_the_cache_is_neither_used_nor_removed(publisher: Publisher, cache: Path) -> None:
    cache.mkdir()
    (cache / "walk.pth").write_bytes(b"something else")
    found = hashlib.sha256(b"something else").hexdigest()
    for look in (zoo.locate, zoo.fetch, zoo.resolve):
        with pytest.raises(SkelactError, match=f"expected sha256 {publisher.sha256('walk')}, found {found}; remove"):
            look("walk")
    assert (cache / "walk.pth").read_bytes() == b"something else"


# Downloads


def test_fetch_downloads_once(publisher: Publisher, cache: Path) -> None:
    path = zoo.fetch("walk")
    assert path == cache / "walk.pth"
    assert path.read_bytes() == publisher.files["/zoo/walk.pth"]
    assert zoo.fetch("walk") == path
    assert publisher.requests == [("/zoo/walk.pth", None)]
    assert leftovers(cache) == {"walk.pth"}


@pytest.mark.parametrize("breakage", ["drop", "reset", "hang"])
def test_a_broken_connection_is_resumed(
    publisher: Publisher, cache: Path, monkeypatch: pytest.MonkeyPatch, breakage: str
) -> None:
    monkeypatch.setattr(zoo, "TIMEOUT_S", 1.0)
    publisher.answers = [breakage]
    assert zoo.fetch("walk").read_bytes() == publisher.files["/zoo/walk.pth"]
    assert len(publisher.requests) == 2
    if breakage != "reset":  # a reset may take bytes with it that had not been read
        assert publisher.requests[1] == ("/zoo/walk.pth", f"bytes={HALF}-")
    assert leftovers(cache) == {"walk.pth"}


def test_a_server_that_keeps_breaking_leaves_a_part_for_the_next_run(publisher: Publisher, cache: Path) -> None:
    publisher.answers = ["drop", "503", "drop"]
    with pytest.raises(SkelactError, match=r"closed after 225000 of 300000 bytes"):
        zoo.fetch("walk")
    assert leftovers(cache) == {"walk.pth.part"}
    assert zoo.fetch("walk").read_bytes() == publisher.files["/zoo/walk.pth"]
    assert publisher.requests[-1] == ("/zoo/walk.pth", "bytes=225000-")


def test_the_bar_goes_on_where_the_part_ends(publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for progress in (True, False):
        publisher.answers = ["drop"]
        monkeypatch.setattr(sys, "stderr", terminal := Terminal())
        zoo.fetch("walk", progress=progress).unlink()
        assert ("walk:  50%" in terminal.getvalue()) == progress
        assert ("walk: 100%" in terminal.getvalue()) == progress


def test_a_server_without_ranges_starts_over(publisher: Publisher) -> None:
    publisher.answers = ["drop", "no-range"]
    assert zoo.fetch("walk").read_bytes() == publisher.files["/zoo/walk.pth"]
    assert len(publisher.requests) == 2


@pytest.mark.parametrize("part", [b"of another file", bytes(SIZE), bytes(SIZE + 1)])
def test_a_part_that_is_none_is_dropped(publisher: Publisher, cache: Path, part: bytes) -> None:
    """Shorter, it is found by the hash; as long or longer, the server answers 416."""
    cache.mkdir()
    (cache / "walk.pth.part").write_bytes(part)
    assert zoo.fetch("walk").read_bytes() == publisher.files["/zoo/walk.pth"]
    assert [asked for _, asked in publisher.requests] == [f"bytes={len(part)}-", None]
    assert leftovers(cache) == {"walk.pth"}


def test_wrong_content_is_removed_and_both_hashes_told(publisher: Publisher, cache: Path) -> None:
    publisher.answers = ["wrong"]
    found = hashlib.sha256(publisher.files["/zoo/walk.pth"][::-1]).hexdigest()
    with pytest.raises(SkelactError, match=f"expected sha256 {publisher.sha256('walk')}, found {found}"):
        zoo.fetch("walk")
    assert leftovers(cache) == set()


def test_a_passing_server_error_is_tried_again(publisher: Publisher) -> None:
    publisher.answers = ["500", "503"]
    assert zoo.fetch("walk").read_bytes() == publisher.files["/zoo/walk.pth"]


def test_a_missing_file_is_told_at_once(publisher: Publisher) -> None:
    publisher.answers = ["404"]
    with pytest.raises(SkelactError, match=rf"{publisher.url}/zoo/walk\.pth \(HTTP Error 404: Not Found\)"):
        zoo.fetch("walk")
    assert len(publisher.requests) == 1


def test_offline_tells_the_url_the_folder_and_what_is_there(
    publisher: Publisher, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zoo.fetch("wave")
    with socket.create_server(("127.0.0.1", 0)) as unused:
        nowhere = f"http://127.0.0.1:{unused.getsockname()[1]}"
    monkeypatch.setenv("SKELACT_WEIGHTS_URL", nowhere)
    with pytest.raises(SkelactError) as caught:
        zoo.fetch("walk")
    message = str(caught.value)
    assert f"{nowhere}/zoo/walk.pth" in message
    assert f"put the file walk.pth into {cache}" in message
    assert "available there: wave" in message
    assert "\n" not in message


@pytest.mark.parametrize("mirror", ["mirror", "http://mirror:port", "gopher://mirror"])
def test_a_mirror_that_is_no_url(publisher: Publisher, monkeypatch: pytest.MonkeyPatch, mirror: str) -> None:
    monkeypatch.setenv("SKELACT_WEIGHTS_URL", mirror)
    with pytest.raises(SkelactError, match=f"from {mirror}/zoo/walk.pth"):
        zoo.fetch("walk")


def test_a_mirror_may_be_a_folder(publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / "walk.pth").write_bytes(publisher.files["/zoo/walk.pth"])
    monkeypatch.setenv("SKELACT_WEIGHTS_URL", tmp_path.as_uri())
    assert zoo.fetch("walk").read_bytes() == publisher.files["/zoo/walk.pth"]


def test_ctrl_c_keeps_the_part(publisher: Publisher, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chunks = iter([publisher.files["/zoo/walk.pth"][:1000]])

    def read_then_interrupt(response: Any) -> bytes:
        for chunk in chunks:
            return chunk
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(zoo, "_read", read_then_interrupt)
        with pytest.raises(KeyboardInterrupt):
            zoo.fetch("walk")
    assert leftovers(cache) == {"walk.pth.part"}
    assert zoo.fetch("walk").read_bytes() == publisher.files["/zoo/walk.pth"]
    assert publisher.requests[-1] == ("/zoo/walk.pth", "bytes=1000-")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_told_in_one_line(publisher: Publisher, cache: Path) -> None:
    cache.mkdir()
    (cache / "walk.pth.part").symlink_to("/dev/full")
    with pytest.raises(SkelactError, match=r"^cannot write .*walk\.pth: No space left on device$"):
        zoo.fetch("walk")
    assert not (cache / "walk.pth").exists()


def test_a_cache_folder_that_is_a_file(publisher: Publisher, cache: Path) -> None:
    cache.write_text("")
    with pytest.raises(SkelactError, match="Not a directory"):
        zoo.fetch("walk")


# More than one process

FETCH_WALK = """
import sys
from skelact import weights
weights.ZOO = {"walk": weights.PublishedModel(
    "walk", weights.PUBLISHER + "/zoo/walk.pth", sys.argv[1], "joint", "coco", (), 0.0, "")}
weights.fetch("walk")
"""


def start_fetching(publisher: Publisher) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", FETCH_WALK, publisher.sha256("walk")]
    return subprocess.Popen(command, cwd=Path(__file__).parents[1])


def test_processes_that_want_the_same_file_download_it_once(publisher: Publisher, cache: Path) -> None:
    publisher.answers = ["slow"]
    fetchers = [start_fetching(publisher) for _ in range(3)]
    assert [fetcher.wait(60) for fetcher in fetchers] == [0, 0, 0]
    assert (cache / "walk.pth").read_bytes() == publisher.files["/zoo/walk.pth"]
    assert len(publisher.requests) == 1


def test_threads_that_want_the_same_file_download_it_once(publisher: Publisher) -> None:
    publisher.answers = ["slow"]
    with ThreadPoolExecutor(3) as pool:
        paths = set(pool.map(zoo.fetch, ["walk"] * 3))
    assert len(paths) == len(publisher.requests) == 1


def test_a_killed_download_is_resumed(publisher: Publisher, cache: Path) -> None:
    publisher.answers = ["hang"]
    fetcher = start_fetching(publisher)
    assert publisher.hanging.wait(60)
    part = cache / "walk.pth.part"
    deadline = time.monotonic() + 10
    while not (part.exists() and part.stat().st_size > 0):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    fetcher.kill()
    fetcher.wait(60)
    assert leftovers(cache) == {"walk.pth.part"}
    kept = part.stat().st_size
    assert zoo.fetch("walk").read_bytes() == publisher.files["/zoo/walk.pth"]
    assert publisher.requests[-1] == ("/zoo/walk.pth", f"bytes={kept}-")


# Names


def test_a_fused_name_resolves_to_all_its_streams(publisher: Publisher, cache: Path) -> None:
    resolved = zoo.resolve("both")
    assert [(model.path, model.weight) for model in resolved] == [
        (cache / "walk.pth", 2),
        (cache / "wave.pth", 1),
    ]
    assert [model.published for model in resolved] == [zoo.ZOO["walk"], zoo.ZOO["wave"]]
    assert zoo.resolve("walk") == [zoo.ResolvedModel(cache / "walk.pth", 1.0, resolved[0].published)]
    with pytest.raises(SkelactError, match="both is no single file but several streams: walk, wave"):
        zoo.fetch("both")


def test_a_file_resolves_to_itself(publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path / "mine.pt"
    mine.write_bytes(b"")
    assert zoo.resolve(mine) == zoo.resolve(str(mine)) == [zoo.ResolvedModel(mine, 1.0, None)]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "walk").write_bytes(b"")
    assert zoo.resolve("walk") == [zoo.ResolvedModel(Path("walk"), 1.0, None)], "a file comes before a name"
    with pytest.raises(SkelactError, match="a folder, not a checkpoint file"):
        zoo.resolve(tmp_path)
    run = tmp_path / "run" / "best.safetensors"
    run.parent.mkdir()
    run.write_bytes(b"")
    with pytest.raises(SkelactError, match=f"a folder, not a checkpoint file; it holds {re.escape(str(run))}"):
        zoo.resolve(run.parent)
    assert publisher.requests == []


def test_an_unknown_name_gets_near_matches() -> None:
    with pytest.raises(
        SkelactError, match=r"neither a file nor a zoo name; did you mean .*ntu60-2d-joint[,?]"
    ) as caught:
        zoo.resolve("NTU60-2d-jont")
    assert "skelact weights list" in str(caught.value)
    with pytest.raises(SkelactError, match=r"neither a file nor a zoo name; `skelact weights list`"):
        zoo.resolve("runs/xyz.pt")


# The commands


def test_fetch_then_list_then_path(publisher: Publisher, cache: Path) -> None:
    missing = run_cli("path", "both")
    assert isinstance(missing.exception, SkelactError)
    assert str(missing.exception) == "both is not on this machine; run: skelact weights fetch both"

    fetched = run_cli("fetch", "walk", "both")
    assert fetched.exit_code == 0
    assert fetched.stdout == ""
    assert fetched.stderr.splitlines() == [f"{name}: {cache / name}.pth" for name in ("walk", "wave")]

    assert run_cli("path", "walk").stdout == f"{cache / 'walk.pth'}\n"
    assert run_cli("path", "both").stdout == f"{cache / 'walk.pth'}\n{cache / 'wave.pth'}\n"
    assert run_cli("fetch", "all", "--quiet").output == ""
    assert len(publisher.requests) == 2


def test_list_shows_what_is_here_and_what_is_wrong(publisher: Publisher, cache: Path, tmp_path: Path) -> None:
    zoo.fetch("walk")
    (cache / "wave.pth").write_bytes(b"something else")
    table = run_cli("list")
    rows = [line.split(maxsplit=4) for line in table.stdout.splitlines()]
    assert rows == [
        ["NAME", "LAYOUT", "TOP-1", "HERE", "STREAM"],
        ["walk", "coco", "90.00", "yes", "joint"],
        ["wave", "coco", "90.00", "wrong", "bone"],
        ["both", "coco", "92.00", "wrong", "2 joint + 1 bone"],
        ["yolo26n-pose.pt", "coco", "no", "pose"],
    ]
    assert table.stderr.count("wave.pth is not wave") == 1

    listed = json.loads(run_cli("list", "--json", "-").stdout)
    assert listed["schema_version"] == 1
    assert listed["folder"] == str(cache)
    assert [(row["name"], row["cached"]) for row in listed["models"]] == [
        ("walk", True),
        ("wave", False),
        ("both", False),
        ("yolo26n-pose.pt", False),
    ]
    assert listed["models"][0]["paths"] == [str(cache / "walk.pth")]
    assert [member["weight"] for member in listed["models"][2]["members"]] == [2, 1]

    assert run_cli("list", "--json", str(tmp_path / "list.json")).output == ""
    assert json.loads((tmp_path / "list.json").read_text(encoding="utf-8")) == listed


def test_fetch_goes_on_past_a_bad_file_and_then_fails(publisher: Publisher, cache: Path) -> None:
    publisher.answers = ["404"]
    result = run_cli("fetch", "both")
    assert str(result.exception) == "1 of 2 not fetched: walk"
    assert "404" in result.stderr
    assert leftovers(cache) == {"wave.pth"}


def test_fetch_of_an_unknown_name_downloads_nothing(publisher: Publisher) -> None:
    result = run_cli("fetch", "walk", "wafe")
    assert isinstance(result.exception, SkelactError)
    assert "did you mean wave" in str(result.exception)
    assert publisher.requests == []


@pytest.mark.parametrize("command", [None, *commands.commands])
def test_every_command_has_help_with_an_example(command: str | None) -> None:
    result = run_cli(*([command] if command else []), "--help")
    assert result.exit_code == 0
    assert re.search(r"Example:\n +.*skelact weights ", result.stdout)


def test_the_commands_import_nothing_heavy() -> None:
    heavy = {"torch", "numpy", "tqdm", "skelact.weights"}
    code = f"import sys, skelact.cli_weights; print(*{heavy} & set(sys.modules))"
    root = Path(__file__).parents[1]
    loaded = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == ""


def test_a_slow_download_is_waited_for_as_long_as_something_comes(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Patience is for a network from which nothing comes; this one takes twice as long, bit by bit."""
    monkeypatch.setattr(zoo, "PATIENCE_S", 0.6)
    publisher.answers = ["trickle"]
    assert zoo.fetch("walk").read_bytes() == publisher.files["/zoo/walk.pth"]
    assert len(publisher.requests) == 1


def test_what_is_left_of_a_file_without_a_hash_is_not_gone_on_with(publisher: Publisher, cache: Path) -> None:
    """Nothing tells whether it is the beginning of the one that is published now."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("weights", bytes(1000))
    publisher.files["/pose.pt"] = packed.getvalue()
    cache.mkdir()
    (cache / "pose.pt.part").write_bytes(b"of last year's")
    path = zoo.fetch_patiently(zoo.yolo_pose("pose.pt"))
    assert path.read_bytes() == packed.getvalue()
    assert publisher.requests == [("/pose.pt", None)]


@pytest.mark.parametrize("value", ["", "0", "false", "No", " off ", "n", None])
def test_ways_to_say_that_the_network_is_allowed(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKELACT_OFFLINE", "1")
    assert zoo.offline()
    if value is None:
        monkeypatch.delenv("SKELACT_OFFLINE")
    else:
        monkeypatch.setenv("SKELACT_OFFLINE", value)
    assert not zoo.offline()


def test_a_download_without_an_end_is_given_up(
    publisher: Publisher, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zoo, "MAX_BYTES", SIZE // 4)
    with pytest.raises(SkelactError, match=r"cannot download walk from .*more than \d+ MB came"):
        zoo.fetch("walk", progress=False)
    assert not leftovers(cache)


def test_an_archive_that_unpacks_without_an_end_is_not_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "yolo26n-pose.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data", bytes(100_000))
    assert zoo.is_whole(zoo.YOLO26N_POSE, path)
    monkeypatch.setattr(zoo, "MAX_BYTES", 10_000)
    assert path.stat().st_size < zoo.MAX_BYTES
    assert not zoo.is_whole(zoo.YOLO26N_POSE, path)
