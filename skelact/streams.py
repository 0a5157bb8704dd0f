"""The newest frame of a camera, a stream or a video that plays: what can't be looked at in time is dropped."""

from __future__ import annotations

import logging
import math
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import cv2

from skelact.errors import SkelactError
from skelact.structures import Frame
from skelact.video import Upright, read_frames

logger = logging.getLogger("skelact")

NETWORK = ("http://", "https://", "rtsp://", "rtsps://", "rtmp://", "srt://", "udp://")
PROTOCOLS = (
    "http,https,httpproxy,tcp,tls,crypto,rtsp,rtsps,rtp,srtp,udp,rtmp,rtmps,srt"  # no file: an address opens none
)
TIMEOUT_S = 10.0
BACKOFF_S = (0.5, 15.0)  # before the first and at most before a later attempt to connect again
TICK_S = 0.5  # who waits for a frame hears so often that none came
MAX_STEP_S = 2.0  # from one picture to the next; beyond, they were cut together
SETTLE_S = 10.0  # of nothing but late pictures, until they are taken for what is possible


class LatestFrames:
    """Frames of a source, read in a thread of its own; whoever asks gets the newest.

    Args:
        source: the index of a camera, an address (RTSP, HTTP, ...) or a video file, which plays at its own rate.
        timeout_s: how long a stream may not answer.
        reconnect: whether to connect again, with growing pauses, to a stream or camera that broke off after it had
            given frames.

    Attributes:
        is_file: whether the source is a video file.
        num_read: frames that the source gave.
        num_dropped: those of them that nobody looked at, as there was a newer one.
        num_reconnects: how often the source came back.

    Raises:
        SkelactError: the source is an address of another protocol.
    """

    def __init__(self, source: str | int | Path, timeout_s: float = TIMEOUT_S, reconnect: bool = True) -> None:
        self.source = source
        self.timeout_s = timeout_s
        self.num_read = self.num_dropped = self.num_reconnects = 0
        self.is_file = not _is_camera(source) and not _is_address(source)
        self._name = _without_secrets(str(source))
        if self.is_file and "://" in str(source):
            raise SkelactError(f"{self._name}: expected a file or an address with {', '.join(NETWORK)}")
        self._reconnect = reconnect and not self.is_file
        self._newest: Frame | None = None
        self._error: BaseException | None = None
        self._ended = False
        self._stopped = threading.Event()
        self._changed = threading.Condition()
        self._started_s: float | None = None  # by time.monotonic(), of the first frame
        self._thread = threading.Thread(target=self._run, name="stream", daemon=True)

    def __enter__(self) -> LatestFrames:
        self._thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self.stop()
        self._thread.join(timeout=1.0)  # one that waits for a dead stream ends with the process

    def stop(self) -> None:
        """Give no more frames."""
        self._stopped.set()
        with self._changed:
            self._changed.notify_all()

    def now_s(self) -> float:
        """Seconds since the first frame came."""
        return 0.0 if self._started_s is None else time.monotonic() - self._started_s

    def __iter__(self) -> Iterator[Frame | None]:
        """The newest frame again and again, each once, until the source ends; ``time_s`` tells when it came.

        None where there were frames before, and none came for ``TICK_S``.

        Raises:
            SkelactError: the source can't be opened, or gives no frame in time.
        """
        while True:
            with self._changed:
                # Not longer, also before the first: on Windows nothing, not even Ctrl-C, ends it sooner.
                told = self._changed.wait_for(lambda: self._newest or self._ended or self._stopped.is_set(), TICK_S)
                frame, self._newest = self._newest, None
                if self._stopped.is_set():
                    return
                if frame is None and told:
                    if self._error:
                        raise self._error
                    return
            if frame or self.num_read:
                yield frame

    # --- in the thread --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        pause_s = BACKOFF_S[0]
        while not self._stopped.is_set():
            before = self.num_read
            error: BaseException | None = None
            try:
                self._read()
            except BaseException as raised:  # told to the reader
                error = raised
            if self.num_read > before:
                pause_s = BACKOFF_S[0]
            if self._stopped.is_set():
                break
            if not self._reconnect or not self.num_read or not isinstance(error, SkelactError | None):
                self._error = error
                if error is None and not self.is_file:
                    logger.info("%s: the stream ended", self._name)
                break
            logger.warning("%s; connecting again in %.1f s", error or f"{self._name}: the stream ended", pause_s)
            self._stopped.wait(pause_s)
            pause_s = min(2 * pause_s, BACKOFF_S[1])
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _read(self) -> None:
        """Frames until the source ends or breaks off."""
        connected_again = self.num_read > 0
        images = self._paced() if self.is_file else self._camera() if _is_camera(self.source) else self._stream()
        for image in images:
            if self._stopped.is_set():
                return
            if connected_again:
                self.num_reconnects += 1
                connected_again = False
            self._put(image)

    def _put(self, image: Any) -> None:
        now_s = time.monotonic()
        if self._started_s is None:
            self._started_s = now_s
        with self._changed:
            self.num_dropped += self._newest is not None
            self._newest = Frame(self.num_read, now_s - self._started_s, image)
            self.num_read += 1
            self._changed.notify_all()

    def _paced(self) -> Iterator[Any]:
        started_s = time.monotonic()
        for frame in read_frames(str(self.source)):
            if self._stopped.wait(max(0.0, started_s + frame.time_s - time.monotonic())):
                return
            yield frame.image

    def _camera(self) -> Iterator[Any]:
        index = int(self.source)  # type: ignore[arg-type]
        with _quiet_opencv():
            camera = cv2.VideoCapture(index)
        try:
            if not camera.isOpened():
                raise SkelactError(
                    f"camera {index}: expected a camera, found none of that index; is it plugged in, and may this "
                    "program use it (macOS and Windows: settings, privacy, camera; then try again)?"
                )
            while not self._stopped.is_set():
                is_read, image = camera.read()
                if not is_read:
                    raise SkelactError(f"camera {index}: gives no more pictures")
                yield image
        finally:
            camera.release()

    def _stream(self) -> Iterator[Any]:
        options = {
            "protocol_whitelist": PROTOCOLS,
            "rtsp_flags": "prefer_tcp",  # which loses no packets; UDP where the camera has nothing else
            "fpsprobesize": "0",  # the frame rate is not needed, and to find it takes 20 pictures
            "flags": "low_delay",
        }
        address = str(self.source)
        av.logging.set_level(None)
        unanswered = SkelactError(
            f"{self._name}: expected a stream, found no answer in {self.timeout_s:g} s; is the address right, and the "
            "camera on?"
        )
        opening_s: float | None = time.monotonic()
        try:
            with av.open(address, options=options, timeout=(self.timeout_s, self.timeout_s)) as container:
                opening_s = None
                if not container.streams.video or container.format.name == "tty":
                    raise SkelactError(f"{self._name}: expected a stream of pictures, found none in it")
                deadline_s = time.monotonic() + self.timeout_s
                stream, upright, pace = container.streams.video[0], Upright(), _Pace()
                # A recording comes as fast as the network is (but by RTSP), a live HLS stream in bursts.
                is_recorded = bool(container.duration) and container.format.name != "rtsp"
                if is_recorded:
                    self._reconnect = False  # or all of it would play again
                    if self.num_read:  # the broadcast is over, and its playlist now has all of it
                        return
                is_paced = is_recorded or container.format.name == "hls"
                for packet in container.demux(stream):
                    try:
                        frames = packet.decode()
                    except av.FFmpegError:  # damaged; the next key frame mends it
                        frames = []
                    for frame in frames:
                        if is_paced and self._stopped.wait(pace.wait_s(frame.time)):
                            return
                        yield upright(frame)
                    if frames:
                        deadline_s = time.monotonic() + self.timeout_s
                    elif time.monotonic() > deadline_s:
                        raise SkelactError(
                            f"{self._name}: expected pictures, found none that can be decoded in {self.timeout_s:g} s"
                        )
        except (av.error.ExitError, av.error.TimeoutError):
            raise unanswered from None
        except (av.FFmpegError, OSError, ValueError) as error:
            # FFmpeg calls an RTSP server that says nothing invalid data.
            if opening_s is not None and time.monotonic() - opening_s >= 0.9 * self.timeout_s:
                raise unanswered from None
            reason = getattr(error, "strerror", None) or error
            hint = "; is it ://USER:PASSWORD@HOST, special characters as %40 for @?"
            raise SkelactError(
                f"{self._name}: expected a stream of pictures, found none ({reason})"
                f"{hint if isinstance(error, av.error.HTTPUnauthorizedError) else ''}"
            ) from None


class _Pace:
    """When to show pictures that come faster than they play.

    Those that come late are shown at once, so that a stall is made up for; where all do for a while, the least late of
    them is in time from then on.
    """

    def __init__(self) -> None:
        self._start_s = 0.0
        self._last_s = -math.inf
        self._late: tuple[float, float] | None = None  # since when all are, and by how much at least

    def wait_s(self, time_s: float | None) -> float:
        """How long to wait with the picture of that time."""
        now_s = time.monotonic()
        if time_s is None:
            return 0.0
        if abs(time_s - self._last_s) > MAX_STEP_S:
            self._start_s = now_s - time_s
        self._last_s = time_s
        late_s = now_s - self._start_s - time_s
        if late_s <= 0:
            self._late = None
            return -late_s
        since_s, least_s = self._late or (now_s, late_s)
        self._late = since_s, min(least_s, late_s)
        if now_s - since_s > SETTLE_S:
            self._start_s += self._late[1]
            self._late = None
        return 0.0


def _is_address(source: str | int | Path) -> bool:
    return str(source).lower().startswith(NETWORK)


def _without_secrets(address: str) -> str:
    """An address as it can be told: without who asks, and without passwords among what is asked for."""
    address = re.sub(r"(?<=://).*@", "***@", address)
    return re.sub(r"(?i)((?:pass\w*|pwd|token|key|secret)=)[^&]*", r"\1***", address)


def _is_camera(source: str | int | Path) -> bool:
    return isinstance(source, int) or (str(source).isascii() and str(source).isdigit())


@contextmanager
def _quiet_opencv() -> Iterator[None]:
    """OpenCV tells on stderr, in several lines, that there is no camera."""
    try:
        level = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(0)
    except AttributeError:
        yield
        return
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)
