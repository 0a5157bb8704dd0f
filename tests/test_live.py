"""Stories of a camera that runs: who does what is told as it happens, also after the stream broke off."""

from __future__ import annotations

import functools
import inspect
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from types import SimpleNamespace
from typing import Any, ClassVar

import av
import drawn_people
import numpy as np
import pytest
import stand_ins
from click.testing import CliRunner
from http_stream import HttpStream
from test_report import CHROMIUM, FLAGS, wait_until
from test_tracking import only

import skelact
import skelact.live_session
import skelact.streams
from skelact.cli import main
from skelact.errors import SkelactError
from skelact.live_page import MAX_VIEWERS, LivePage, draw, parse_address
from skelact.live_session import View
from skelact.roi import Region
from skelact.streams import LatestFrames, _Pace
from skelact.structures import Array, Frame, FramePoses
from skelact.timeline import TimelineSettings
from skelact.video import read_frames
from skelact.windows import Window

FPS = 15.0
SIZE = (160, 120)
SMALL = {"window_s": (1.0,), "step_s": 0.25, "min_duration_s": 0.5, "unknown_below": None}
OPTIONS = ["--window", "1", "--step", "0.25", "--min-duration", "0.5", "--unknown-below", "off"]


@pytest.fixture(scope="module")
def waving() -> list[tuple[Any, Any, Any]]:
    scene = drawn_people.scene_of("wave", people=2)
    return list(drawn_people.render(scene, 15, FPS, SIZE))


class Waving:
    """Stands for ``pose.PoseModel``: finds the two who wave in any picture, and takes its time."""

    def __init__(self, waving: list[tuple[Any, Any, Any]], delay_s: float = 0.0) -> None:
        self.waving, self.delay_s = waving, delay_s
        self.provenance: dict[str, Any] = {}

    def __call__(self, name: str, *settings: str | None, **more: Any) -> Waving:
        return self

    def detect(self, frame: Frame) -> FramePoses:
        time.sleep(self.delay_s)
        _, keypoint, bbox = self.waving[int(frame.time_s * FPS) % len(self.waving)]
        scores = np.full((len(bbox), 17), 0.9, np.float32), bbox, np.full(len(bbox), 0.9, np.float32)
        return FramePoses(frame.index, frame.time_s, keypoint, *scores)


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    return stand_ins.classifier_file(tmp_path / "model.safetensors")


@pytest.fixture
def camera(waving: list[tuple[Any, Any, Any]]) -> Iterator[HttpStream]:
    with HttpStream([image for image, *_ in waving], FPS) as stream:
        yield stream


@pytest.fixture
def estimator(waving: list[tuple[Any, Any, Any]], monkeypatch: pytest.MonkeyPatch) -> Waving:
    found = Waving(waving)
    monkeypatch.setattr(skelact.live_session, "PoseModel", found)
    return found


def test_people_in_a_stream_get_their_actions_while_they_act(
    camera: HttpStream, classifier: Path, estimator: Waving
) -> None:
    session = skelact.live(camera.url, classifier, duration_s=4.0, **SMALL)
    events = list(session)
    begun = {event.subject for event in events if event.kind == "start"}
    assert {(1,), (2,)} <= begun
    assert len([e for e in events if e.kind == "end"]) == len([e for e in events if e.kind == "start"])
    report = session.report
    assert report.num_read >= 40
    assert report.num_windows >= 16
    assert 0 < report.latency_s[0] <= report.latency_s[1] < 1.0


def test_who_is_too_slow_drops_frames_and_does_not_fall_behind(
    camera: HttpStream, classifier: Path, estimator: Waving
) -> None:
    estimator.delay_s = 0.2
    session = skelact.live(camera.url, classifier, duration_s=3.0, **SMALL)
    list(session)
    report = session.report
    assert report.num_dropped > report.num_seen
    assert report.num_seen + report.num_dropped <= report.num_read <= report.num_seen + report.num_dropped + 1
    assert report.latency_s[0] < 1.0


def test_a_stream_that_breaks_off_comes_back(camera: HttpStream, classifier: Path, estimator: Waving) -> None:
    session = skelact.live(camera.url, classifier, duration_s=6.0, timeout_s=1.0, **SMALL)
    threading.Timer(1.5, camera.cut).start()
    threading.Timer(2.5, camera.restore).start()
    events = list(session)
    assert session.report.num_reconnects == 1
    assert session.report.num_read > 45
    assert max(event.stop_s for event in events) > 4.0, "there are events after the break"


def test_what_was_done_before_a_stream_broke_off_is_told_at_once_and_time_goes_on(
    camera: HttpStream, classifier: Path, estimator: Waving
) -> None:
    session = skelact.live(camera.url, classifier, duration_s=7.0, timeout_s=1.0, **SMALL)
    threading.Timer(2.0, camera.cut).start()
    started_s = time.monotonic()
    told = [(event.kind, time.monotonic() - started_s) for event in session]
    assert 6.5 < time.monotonic() - started_s < 10
    assert {kind for kind, _ in told} == {"start", "end"}
    assert max(told_s for _, told_s in told) < 6, "nothing had to wait for the end"


def test_memory_is_bounded(camera: HttpStream, classifier: Path, estimator: Waving) -> None:
    session = skelact.live(camera.url, classifier, duration_s=4.0, **SMALL)
    list(session)
    assert all(len(ring.poses) <= (1.0 + 0.25) * FPS + 2 for ring in session._rings.values())
    assert len(session._times) <= (1.0 + 0.25) * FPS + 2


def test_a_pair_is_one_whoever_of_them_matters_more(
    classifier: Path, waving: list[tuple[Any, Any, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First one of them is seen surely, then the other."""

    class InTurns(Waving):
        def detect(self, frame: Frame) -> FramePoses:
            poses = super().detect(frame)
            poses.keypoint_score[int(frame.time_s) % 2] = 0.4
            return poses

    monkeypatch.setattr("skelact.live_session.PoseModel", InTurns(waving))
    path = tmp_path / "a.mp4"
    drawn_people.write_video(path, [waving[k % len(waving)][0] for k in range(60)], FPS)
    subjects = {event.subject for event in skelact.live(path, classifier, **SMALL)}
    assert [subject for subject in subjects if len(subject) == 2] == [(1, 2)]


def test_what_is_done_at_the_end_of_a_video_ends_with_it(
    classifier: Path, estimator: Waving, waving: list[tuple[Any, Any, Any]], tmp_path: Path
) -> None:
    path = tmp_path / "a.mp4"
    drawn_people.write_video(path, [waving[k % len(waving)][0] for k in range(26)], FPS)  # 1.73 s
    events = list(skelact.live(path, classifier, **SMALL))
    assert 1.6 < max(event.stop_s for event in events) < 1.75


def test_a_video_starts_when_the_network_is_ready(
    classifier: Path, waving: list[tuple[Any, Any, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For its first picture a network is compiled, which takes a second."""

    class Compiled(Waving):
        def detect(self, frame: Frame) -> FramePoses:
            poses, self.delay_s = super().detect(frame), 0.0
            return poses

    monkeypatch.setattr("skelact.live_session.PoseModel", Compiled(waving, delay_s=1.5))
    path = tmp_path / "a.mp4"
    drawn_people.write_video(path, [waving[k % len(waving)][0] for k in range(30)], FPS)
    session = skelact.live(path, classifier, **SMALL)
    list(session)
    assert session.report.num_dropped < 10


# --- by another clock --------------------------------------------------------------------------------------------


class Played:
    """Stands for ``streams.LatestFrames``: a minute of pictures in no time, each looked at for a tenth of a second."""

    is_file = False
    num_read = num_dropped = num_reconnects = 0

    def __init__(self, source: object, timeout_s: float, reconnect: bool) -> None:
        self.image, self.time_s = np.zeros((SIZE[1], SIZE[0], 3), np.uint8), 0.0

    def __enter__(self) -> Played:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def now_s(self) -> float:
        return self.time_s + 0.1

    def __iter__(self) -> Iterator[Frame]:
        for index in range(int(60 * FPS)):
            self.time_s = index / FPS
            yield Frame(index, self.time_s, self.image)


@pytest.fixture
def played(estimator: Waving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(skelact.live_session, "LatestFrames", Played)


def detecting(estimator: Waving, monkeypatch: pytest.MonkeyPatch, change: Callable[[FramePoses], FramePoses]) -> None:
    """Have the estimator see something else."""
    detect = estimator.detect
    monkeypatch.setattr(estimator, "detect", lambda frame: change(detect(frame)))


def second_leaves(time_s: float) -> Callable[[FramePoses], FramePoses]:
    """Of two people only the first is there from then on."""
    return lambda poses: only(poses, np.arange(2 if poses.time_s < time_s else 1))


def test_who_leaves_has_done_what_they_did_a_second_later(
    played: None, classifier: Path, estimator: Waving, monkeypatch: pytest.MonkeyPatch
) -> None:
    detecting(estimator, monkeypatch, second_leaves(4))
    session = skelact.live("camera", classifier, duration_s=10.0, **{**SMALL, "subjects": "persons"})
    told = [(event, session.report.duration_s) for event in session]
    ((gone, told_s),) = [(event, s) for event, s in told if event.subject == (2,) and event.kind == "end"][-1:]
    assert gone.stop_s == pytest.approx(4.0, abs=0.3)
    assert told_s < 6
    assert max(event.stop_s for event, _ in told if event.subject == (1,)) == pytest.approx(10, abs=0.1)
    assert (list(session._last_seen), list(session._rings)) == ([(1,)], [1]), "nothing is kept of who is gone"
    assert len(session._times) <= (1.0 + 0.25) * FPS + 2


def test_only_who_stands_in_a_region_counts(
    played: None, classifier: Path, estimator: Waving, waving: list[tuple[Any, Any, Any]]
) -> None:
    """The second of two is somebody only while their feet are on the part of the floor that was named."""
    x = waving[0][2][1, [0, 2]].mean() / SIZE[0]
    left, right = x - 0.15, x + 0.15
    floor = f"{left},0.5 {right},0.5 {right},1 {left},1"
    views: list[View] = []
    session = skelact.live(
        "camera", classifier, regions=floor, duration_s=4.0, on_frame=lambda view: views.append(view()), **SMALL
    )
    assert {event.subject for event in session} == {(2,)}
    assert [track.track_id for track in views[-1].sequence.tracks] == [2]
    without = draw(replace(views[-1], regions=()))
    assert (draw(views[-1]) != without).any(), "it is outlined in the picture"


def test_a_pair_keeps_its_name_when_one_of_them_was_away(
    played: None, classifier: Path, estimator: Waving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For longer than poses are kept, and not so long that the tracker takes them for somebody new."""

    def one_leaves(poses: FramePoses) -> FramePoses:
        return only(poses, np.arange(1 if 2 <= poses.time_s < 3.5 else 0, 2))

    detecting(estimator, monkeypatch, one_leaves)
    events = list(skelact.live("camera", classifier, duration_s=6.0, **{**SMALL, "subjects": "pairs"}))
    assert max(event.start_s for event in events) > 3.4, "the pair is there again"
    assert {event.subject for event in events} == {(1, 2)}


def test_whose_box_is_never_sure_does_nothing(
    played: None, classifier: Path, estimator: Waving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tracker begins with a sure box, and then follows unsure ones."""

    def unsure(poses: FramePoses) -> FramePoses:
        return replace(poses, bbox_score=np.array([0.9, 0.9 if poses.time_s == 0 else 0.12], np.float32))

    detecting(estimator, monkeypatch, unsure)
    events = skelact.live("camera", classifier, duration_s=4.0, **SMALL)
    assert {event.subject for event in events} == {(1,)}


def test_who_is_seen_off_and_on_is_as_sure_as_they_were_seen(
    played: None, classifier: Path, estimator: Waving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who lies: between two detections their joints are interpolated, and nothing is known of the box."""

    def now_and_then(poses: FramePoses) -> FramePoses:
        half_sure = replace(poses, bbox_score=np.full(len(poses.bbox), 0.45, np.float32))
        return only(half_sure, np.arange(0 if round(poses.time_s * FPS) % 2 else 2))

    detecting(estimator, monkeypatch, now_and_then)
    events = skelact.live("camera", classifier, duration_s=4.0, **SMALL)
    assert {(1,), (2,)} <= {event.subject for event in events}


@pytest.mark.parametrize("clean", [True, False])
def test_poses_are_cleaned_and_what_is_shown_is_smooth(
    played: None, classifier: Path, estimator: Waving, monkeypatch: pytest.MonkeyPatch, clean: bool
) -> None:
    rng = np.random.default_rng(0)
    still = estimator.waving[0][1]
    score_windows = skelact.live_session.score_windows
    classified, shown = [], []

    def noted(windows: list[Window], *more: Any) -> Array:
        classified.extend(windows)
        return score_windows(windows, *more)

    def jitter(poses: FramePoses) -> FramePoses:
        return replace(poses, keypoint=(still + rng.normal(0, 2, still.shape)).astype(np.float32))

    monkeypatch.setattr(skelact.live_session, "score_windows", noted)
    detecting(estimator, monkeypatch, jitter)
    settings = {**SMALL, "clean": clean, "subjects": "persons"}
    list(skelact.live("camera", classifier, duration_s=4.0, on_frame=lambda view: shown.append(view()), **settings))
    windows = [track.keypoint - still[track.track_id - 1] for window in classified for track in window.tracks]
    drawn = [track.keypoint - still[track.track_id - 1] for view in shown[15:] for track in view.sequence.tracks]
    for poses in (windows, drawn):
        assert (np.concatenate(poses).std() < 1.8) == clean, "of 2 pixels"


def test_what_is_shown_is_who_is_there_and_what_they_do(
    played: None, classifier: Path, estimator: Waving, monkeypatch: pytest.MonkeyPatch
) -> None:
    detecting(estimator, monkeypatch, second_leaves(3))
    shown = []
    session = skelact.live("camera", classifier, duration_s=4.0, on_frame=lambda view: shown.append(view()), **SMALL)
    events = list(session)
    assert [track.track_id for track in shown[40].sequence.tracks] == [1, 2]
    assert [track.track_id for track in shown[50].sequence.tracks] == [1]
    np.testing.assert_array_equal(shown[50].sequence.tracks[0].bbox[0], estimator.waving[50 % 15][2][0])
    doing = {event.subject: event.class_name for event in events if event.kind == "start" and event.start_s < 1}
    captions = {subject: caption.rpartition(" ") for subject, caption in shown[30].captions.items()}
    assert {subject: name for subject, (name, _, _) in captions.items()} == doing
    assert all(0.25 < float(score) <= 1 for *_, score in captions.values()), "the best of four"
    assert not shown[0].captions


def test_windows_are_as_long_and_as_often_as_asked(
    played: None, classifier: Path, estimator: Waving, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans = []

    def noted(windows: list[Window], classifier: Any, img_shape: tuple[int, int]) -> Array:
        spans.extend((window.start_s, window.stop_s) for window in windows)
        assert img_shape == (SIZE[1], SIZE[0])
        return np.full((len(windows), 4), 0.25)

    monkeypatch.setattr(skelact.live_session, "score_windows", noted)
    settings = {"window_s": (1.0, 2.0), "step_s": 0.5, "subjects": "persons"}
    session = skelact.live("camera", classifier, duration_s=6.0, **settings)
    told_s = [session.report.duration_s for _ in session]
    assert told_s[0] == pytest.approx(2.1, abs=0.05), "it lasted for a second, and half a window has passed it"
    stops = np.unique([stop_s for _, stop_s in spans])
    np.testing.assert_allclose(stops, np.arange(0.5, 6.1, 0.5), atol=0.01)
    whole = {round(stop_s - start_s, 2) for start_s, stop_s in spans if stop_s > 2.1}
    assert whole == {1.0, 2.0}
    assert session.report.num_windows == len(spans)
    median, p95 = session.report.latency_s
    assert p95 == pytest.approx(0.1 + 0.5 / FPS), "half of them stop between two pictures, and each takes a tenth"
    assert median == pytest.approx(0.1 + 0.25 / FPS)
    assert f"{len(spans)} windows, from a window's end to its label {median:.3f} s" in str(session.report)


def test_a_session_is_gone_through_once(classifier: Path, estimator: Waving, camera: HttpStream) -> None:
    session = skelact.live(camera.url, classifier, duration_s=0.5, **SMALL)
    list(session)
    with pytest.raises(SkelactError, match="make another one"):
        list(session)


def test_a_video_plays_at_its_own_rate(tmp_path: Path) -> None:
    film = stand_ins.film(tmp_path / "film.mp4", drawn_people.scene_of("wave"), seconds=1.0)
    started_s = time.monotonic()
    with LatestFrames(film.path) as frames:
        seen = [frame.time_s for frame in frames if frame]
    assert 0.85 < time.monotonic() - started_s < 2.5
    assert len(seen) > 5
    assert 0.8 < seen[-1] < 1.5


@pytest.fixture
def files(tmp_path: Path) -> Iterator[str]:
    """The address of a server of files."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def pictures(seconds: float) -> list[Array]:
    scene = drawn_people.scene_of("wave")
    return [image for image, *_ in drawn_people.render(scene, round(seconds * 25), 25.0, (160, 120))]


def test_a_video_from_an_address_plays_at_its_own_rate_upright_and_ends(tmp_path: Path, files: str) -> None:
    drawn_people.write_video(tmp_path / "film.mp4", pictures(1.5), 25.0, rotation=90)
    started_s = time.monotonic()
    with LatestFrames(f"{files}/film.mp4") as frames:
        seen = [frame for frame in frames if frame]
    assert 1.2 < time.monotonic() - started_s < 5
    assert 1.2 < seen[-1].time_s < 2
    assert frames.num_reconnects == 0
    shown = next(iter(read_frames(tmp_path / "film.mp4"))).image
    assert seen[0].image.shape == shown.shape == (120, 160, 3)


def test_a_stream_that_ends_and_is_not_to_come_back_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "skelact")
    monkeypatch.setattr(LatestFrames, "_stream", lambda frames: iter(pictures(0.2)))
    with LatestFrames("rtsp://me:secret@camera/1", reconnect=False) as frames:
        assert [frame for frame in frames if frame]
    assert caplog.messages == ["rtsp://***@camera/1: the stream ended"]


def test_a_live_playlist_comes_in_bursts_and_plays_at_its_own_rate(tmp_path: Path, files: str) -> None:
    with av.open(str(tmp_path / "live.m3u8"), "w", format="hls", options={"hls_time": "1"}) as out:
        stream = out.add_stream("libx264", rate=25, width=160, height=120, options={"g": "25"})
        stream.pix_fmt = "yuv420p"
        for image in pictures(6):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        out.mux(stream.encode(None))
    playlist = tmp_path / "live.m3u8"
    playlist.write_text(playlist.read_text().replace("#EXT-X-ENDLIST\n", ""))  # there is more to come
    seen: list[float] = []
    with LatestFrames(f"{files}/live.m3u8") as frames:
        for frame in frames:
            seen += [frame.time_s] if frame else []
            if seen[-1] > 1.4:
                break
    assert len(seen) > 25
    assert max(np.diff(seen)) < 0.5


def test_late_pictures_are_shown_at_once_and_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(skelact.streams.time, "monotonic", lambda: clock[0])
    pace = _Pace()

    def shown_s(time_s: float, comes_s: float) -> float:
        clock[0] = max(clock[0], comes_s)
        clock[0] += pace.wait_s(time_s)
        return clock[0]

    assert [shown_s(k, 0.0) for k in range(3)] == [0, 1, 2], "a burst"
    assert [shown_s(k, 5.5) for k in (3, 4, 5, 6)] == [5.5, 5.5, 5.5, 6], "a stall"
    assert [shown_s(k, 6.0) for k in (70, 71)] == [6, 7], "a cut"
    late = [shown_s(k, k - 60) for k in range(72, 90)]
    assert late[:3] == [12, 13, 14]
    assert [shown_s(k, 29.0) for k in (90, 91)] == [30, 31], "always late is in time, after a while"


def test_other_protocols_are_told(classifier: Path, estimator: Waving) -> None:
    result = CliRunner().invoke(main, ["live", "ftp://me:secret@x/y", "--model", str(classifier)])
    assert result.exit_code == 1
    assert "ftp://***@x/y: expected a file or an address with http://" in result.stderr
    assert "secret" not in result.output


SDP = "v=0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"


class RtspCamera(StreamRequestHandler):
    """Asks for a password, or else has pictures, but over none of the ways to send them that it is asked for."""

    asks_for_password = False
    transports: ClassVar[list[str]] = []

    def handle(self) -> None:
        while request := self.rfile.readline().decode().split():
            headers = dict(line.split(": ", 1) for line in iter(lambda: self.rfile.readline().decode().strip(), ""))
            status, body = "200 OK", SDP if request[0] == "DESCRIBE" else ""
            if request[0] == "DESCRIBE" and self.asks_for_password:
                status = '401 Unauthorized\r\nWWW-Authenticate: Basic realm="x"'
            elif request[0] == "SETUP":
                self.transports.append(headers["Transport"])
                status = "461 Unsupported Transport"
            told = f"RTSP/1.0 {status}\r\nCSeq: {headers['CSeq']}\r\nContent-Type: application/sdp\r\n"
            self.wfile.write(f"{told}Content-Length: {len(body)}\r\n\r\n{body}".encode())


@pytest.fixture
def rtsp(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Host and port of a camera."""
    monkeypatch.setattr(RtspCamera, "transports", [])
    with ThreadingTCPServer(("127.0.0.1", 0), RtspCamera) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_camera_without_tcp_is_asked_for_udp(rtsp: str) -> None:
    with pytest.raises(SkelactError, match="expected a stream of pictures"), LatestFrames(f"rtsp://{rtsp}/") as frames:
        list(frames)
    assert [transport.partition(";")[0] for transport in RtspCamera.transports][:2] == ["RTP/AVP/TCP", "RTP/AVP/UDP"]


def test_a_wrong_password_is_told_in_one_line_that_does_not_hold_it(
    rtsp: str, classifier: Path, estimator: Waving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RtspCamera, "asks_for_password", True)
    address = f"rtsp://me:secret@{rtsp}/?channel=1&password=secret2&x=1"
    result = CliRunner().invoke(main, ["live", address, "--model", str(classifier)])
    assert result.exit_code == 1
    assert f"rtsp://***@{rtsp}/?channel=1&password=***&x=1: expected a stream of pictures" in result.stderr
    assert "401 Unauthorized" in result.stderr
    assert "USER:PASSWORD@HOST" in result.stderr
    assert "secret" not in result.output
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_password_is_not_told_when_a_stream_breaks_off(camera: HttpStream, caplog: pytest.LogCaptureFixture) -> None:
    threading.Timer(0.7, camera.cut).start()
    with LatestFrames(camera.url.replace("://", "://me:secret@")) as frames:
        for _ in frames:
            if "connecting again" in caplog.text:
                break
    assert "http://***@127.0.0.1" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("path", "message"),
    [("silent", "no answer in 0.5 s"), ("rubbish", "expected a stream of pictures"), ("cut", "5XX")],
)
def test_a_stream_that_is_none_is_told_in_one_line(camera: HttpStream, path: str, message: str) -> None:
    if path == "cut":
        camera.cut()
    started_s = time.monotonic()
    with pytest.raises(SkelactError, match=message) as told, LatestFrames(camera.url + path, timeout_s=0.5) as frames:
        list(frames)
    assert "\n" not in str(told.value)
    assert time.monotonic() - started_s < 5


@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_a_stream_that_never_answers_is_told_in_one_line(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/"
        with LatestFrames(address, 0.5, True) as frames, pytest.raises(SkelactError, match="no answer in"):
            next(iter(frames))


def test_nobody_waits_long_at_a_time_for_the_first_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows, nothing but its end ends a wait, not even Ctrl-C."""
    waits: list[float | None] = []
    wait_for = threading.Condition.wait_for

    def noted(self: threading.Condition, predicate: Any, timeout: float | None = None) -> Any:
        waits.append(timeout)
        return wait_for(self, predicate, timeout)

    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with LatestFrames(address, 1.5, True) as frames, monkeypatch.context() as patched:
            patched.setattr(threading.Condition, "wait_for", noted)
            with pytest.raises(SkelactError, match="no answer in"):
                next(iter(frames))
    assert len(waits) > 1
    assert set(waits) == {skelact.streams.TICK_S}


def test_a_camera_that_is_not_there(classifier: Path, estimator: Waving) -> None:
    result = CliRunner().invoke(main, ["live", "77", "--model", str(classifier)])
    assert result.exit_code == 1
    assert "camera 77: expected a camera, found none" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_the_command_writes_json_lines_and_reports(
    camera: HttpStream, classifier: Path, estimator: Waving, tmp_path: Path
) -> None:
    mine = [f"my {name}" for name in stand_ins.CLASSES]
    names = tmp_path / "classes.txt"
    names.write_text("\n".join(mine))
    options = [*OPTIONS, "--duration", "3", "--report-every", "1", "--class-names", str(names)]
    result = CliRunner().invoke(main, ["live", camera.url, "--model", str(classifier), *options])
    assert result.exit_code == 0, result.stderr
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert {event["event"] for event in events} == {"start", "end"}
    assert all(event["schema_version"] == 1 and event["stop_s"] >= event["start_s"] for event in events)
    assert all(event["class_name"] in mine and 0 < event["score"] <= 1 for event in events)
    assert len(result.stderr.splitlines()) >= 3
    assert "(95 %)" in result.stderr.splitlines()[-1]


def test_every_option_gets_where_it_belongs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given: dict[str, dict[str, Any]] = {}

    def note(name: str, made: Any) -> None:
        signature = inspect.signature(getattr(skelact.live_session, name))

        def noted(*arguments: Any, **options: Any) -> Any:
            given[name] = dict(signature.bind(*arguments, **options).arguments)
            return made

        monkeypatch.setattr(skelact.live_session, name, noted)

    class NothingHappens(list[Any]):
        report = "all is told"

    note("Classifier", SimpleNamespace(unknown_below=0.3, window_s=1.5))
    note("PoseModel", "the pose model")
    note("LiveSession", NothingHappens())
    names = tmp_path / "names.txt"
    names.write_text("wave\nwalk\n")
    said = CliRunner().invoke(
        main,
        [
            *("live", "rtsp://x/y", "--model", "a.pth", "--model", "b.pth", "--fusion-weights", "2,1", "--quiet"),
            *("--pose-model", "p.pt", "--backend", "torch", "--precision", "fp32", "--device", "cpu"),
            *("--tracker", "botsort", "--no-clean", "--window", "1,3", "--step", "0.25", "--min-duration", "2"),
            *("--subjects", "pairs", "--unknown-below", "0.4", "--classes", "wave", "--stream", "bone"),
            *("--layout", "coco", "--class-names", str(names), "--duration", "60", "--timeout", "5", "--no-reconnect"),
            *("--roi", "0,0 9,0 9,9"),
        ],
    )
    assert (said.exit_code, said.output) == (0, ""), "it is quiet"
    assert list(given["Classifier"].values()) == [
        *(["a.pth", "b.pth"], [2.0, 1.0], "bone", "coco", ("wave", "walk"), ["wave"], "cpu")
    ]
    pose = given["PoseModel"]
    assert (pose["name"], pose["device"], pose["backend"], pose["precision"]) == ("p.pt", "cpu", "torch", "fp32")
    assert (pose["live"], pose["calibrate_on"]) == (True, None)
    session = given["LiveSession"]
    assert session["settings"] == TimelineSettings((1.0, 3.0), 0.25, 2.0, unknown_below=0.4, subjects="pairs")
    others = ("source", "estimator", "tracker", "regions", "clean", "duration_s", "timeout_s", "reconnect")
    region = Region(((0, 0), (9, 0), (9, 9)))
    expected = ("rtsp://x/y", "the pose model", "botsort", (region,), False, 60.0, 5.0, False)
    assert tuple(session[name] for name in others) == expected

    said = CliRunner().invoke(main, ["live", str(names)])
    assert said.stderr.endswith("all is told\n")
    assert given["PoseModel"]["calibrate_on"] == names, "a file has pictures to calibrate int8 on"
    assert given["LiveSession"]["settings"] == TimelineSettings((1.5,), unknown_below=0.3), "as its model has it"


def test_without_a_screen_there_is_no_window(classifier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("other systems have a screen")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    result = CliRunner().invoke(main, ["live", "0", "--show"])
    assert result.exit_code == 1
    assert "expected a screen, found none" in result.stderr


def test_a_token_without_a_page_is_wrong_usage() -> None:
    result = CliRunner().invoke(main, ["live", "0", "--token", "secret"])
    assert (result.exit_code, "--serve HOST:PORT" in result.stderr) == (2, True)


def test_ctrl_c_ends_what_goes_on(camera: HttpStream, classifier: Path, tmp_path: Path) -> None:
    """In a process of its own, as signals are a process's; what it does when they come is the command's."""
    program = tmp_path / "program.py"
    program.write_text(
        "import sys; sys.path[:0] = sys.argv[1].split(',')\n"
        "import drawn_people, skelact.live_session, test_live\n"
        "from skelact.cli import main\n"
        "waving = list(drawn_people.render(drawn_people.scene_of('wave', people=2), 15, 15.0, (160, 120)))\n"
        "skelact.live_session.PoseModel = test_live.Waving(waving)\n"
        "main(sys.argv[2:])\n"
    )
    here = Path(__file__).parent
    paths = f"{here},{here.parent / 'scripts'}"
    process = subprocess.Popen(
        [sys.executable, str(program), paths, "live", camera.url, "--model", str(classifier), *OPTIONS],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    os.kill(process.pid, signal.SIGINT)
    rest, told = process.communicate(timeout=30)
    assert process.returncode == 0, told
    assert first["event"] == "start"
    assert json.loads(rest.splitlines()[-1])["event"] == "end"
    assert "Traceback" not in told


# --- the page ----------------------------------------------------------------------------------------------------


def fetch(url: str, size: int = 1 << 16, **headers: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
            return answer.status, answer.read(size)
    except urllib.error.HTTPError as error:
        return error.code, b""


def test_the_page_shows_pictures_and_events(camera: HttpStream, classifier: Path, estimator: Waving) -> None:
    with LivePage("127.0.0.1", 0) as page:
        session = skelact.live(camera.url, classifier, duration_s=6.0, on_frame=page.show, **SMALL)
        found: dict[str, tuple[int, bytes]] = {}
        sizes = {"": 1 << 16, "video": 4000, "events": 120}

        def look(name: str) -> None:
            found[name] = fetch(page.url + name, sizes[name])

        threads = [threading.Thread(target=look, args=(name,)) for name in sizes]
        for thread in threads:
            thread.start()
        for event in session:
            page.tell(skelact.live_session.event_json(event))
        for thread in threads:
            thread.join(timeout=10)
    assert b"<h1>skelact live</h1>" in found[""][1]
    assert b"image/jpeg" in found["video"][1]
    assert b"\xff\xd8\xff" in found["video"][1]
    assert b'data: {"schema_version": 1, "event": "start"' in found["events"][1]


def test_a_browser_shows_pictures_and_events_to_who_has_the_token(
    camera: HttpStream, classifier: Path, estimator: Waving, tmp_path: Path
) -> None:
    if CHROMIUM is None:
        pytest.skip("needs chromium (on Debian: apt install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="one of skelact's dev dependencies")
    with LivePage("0.0.0.0", 0) as page, playwright.sync_playwright() as started:
        session = skelact.live(camera.url, classifier, on_frame=page.show, **SMALL)

        def tell() -> None:
            for event in session:
                page.tell(skelact.live_session.event_json(event))

        running = threading.Thread(target=tell)
        running.start()
        browser = started.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        try:
            shown = browser.new_page()
            address = page.url.replace("0.0.0.0", "127.0.0.1")
            refused = shown.goto(address.partition("?")[0])
            assert refused.status == 403
            shown.goto(address, wait_until="domcontentloaded")
            wait_until(shown, "document.querySelectorAll('#events tr').length >= 2")
            wait_until(shown, "document.getElementById('video').naturalWidth > 0")
            size = shown.evaluate("[video.naturalWidth, video.naturalHeight]")
            assert size == list(SIZE)
            assert "person " in shown.inner_text("#events")
        finally:
            session.stop()
            browser.close()
            running.join(timeout=10)
    assert not running.is_alive()


def test_who_comes_later_is_told_what_was_and_only_so_many_are_served() -> None:
    with LivePage("127.0.0.1", 0) as page:
        page.show(lambda: pytest.fail("a picture is drawn, though nobody looks"))
        page.tell({"class_name": "wave"})
        viewers = [urllib.request.urlopen(page.url + "events", timeout=5) for _ in range(MAX_VIEWERS)]
        page.tell({"class_name": "walk"})
        for viewer in viewers:
            told = [viewer.readline().decode() for _ in range(3)]
            assert told == ['data: {"class_name": "wave"}\n', "\n", 'data: {"class_name": "walk"}\n']
        assert fetch(page.url + "video")[0] == 503
        viewers.pop().close()
        deadline_s = time.monotonic() + 10
        while fetch(page.url + "events", 4)[0] == 503:
            assert time.monotonic() < deadline_s, "who goes makes room"
            time.sleep(0.1)
        for viewer in viewers:
            viewer.close()


def test_the_page_answers_nobody_else() -> None:
    with LivePage("127.0.0.1", 0) as page:
        assert page.token is None
        assert fetch(page.url)[0] == 200
        assert fetch(page.url, Host="evil.example")[0] == 403, "a name that was made to point here"
    with LivePage("0.0.0.0", 0) as page:
        assert page.token
        local = page.url.replace("0.0.0.0", "127.0.0.1")
        assert fetch(local)[0] == 200
        assert fetch(local.split("?")[0])[0] == 403
        assert [fetch(wrong)[0] for wrong in (local + "x", local[:-1])] == [403, 403]
        assert fetch(local.replace("?", "secret?"))[0] == 404


def test_a_token_of_any_characters_is_in_the_address_as_it_has_to_be() -> None:
    with LivePage("127.0.0.1", 0, "a+b&c d#\u00e9") as page:
        assert urllib.request.urlopen(page.url, timeout=5).status == 200


def test_the_page_is_served_on_ipv6_too() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"this machine has no IPv6: {error}")
    with LivePage("::1", 0) as page:
        assert urllib.request.urlopen(page.url, timeout=5).status == 200


def test_addresses_of_the_page() -> None:
    assert parse_address("8000") == ("127.0.0.1", 8000)
    assert parse_address("0.0.0.0:80") == ("0.0.0.0", 80)
    assert parse_address("[::1]:80") == ("::1", 80)
    for wrong in ("host", "host:port", "a:1:2", "host:99999", ":80"):
        with pytest.raises(SkelactError, match="expected HOST:PORT"):
            parse_address(wrong)
    with LivePage("127.0.0.1", 0) as page, pytest.raises(SkelactError, match="cannot serve on"):
        LivePage("127.0.0.1", page._server.server_address[1])
