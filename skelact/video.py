"""Frames out of a video file; frames and sound into one."""

from __future__ import annotations

import logging
import math
import os
import queue
import re
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import av
import cv2
import numpy as np

from skelact.errors import SkelactError
from skelact.files import atomic_path
from skelact.kinds import VIDEO_SUFFIXES, kind_of
from skelact.structures import Array, Frame, VideoInfo

logger = logging.getLogger("skelact")

Item = TypeVar("Item")
# Titles that are no UTF-8 are no reason to refuse a video; PyAV 19 has no such option, for it takes them.
ANY_METADATA = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
DEFAULT_FPS, MAX_FPS = 30.0, 1000.0  # the first where a container claims nothing, or the second and more
EARLY_END = 0.9  # pictures that stop before this share of the claimed duration are worth a warning
TIME_BASE = Fraction(1, 90_000)  # of written frames: exact for 24, 25, 30, 50 and 60 fps, by 1000/1001 too
BT709, LIMITED_RANGE, UNSPECIFIED = 1, 1, 2  # FFmpeg's numbers for the colours of HD video, and for no word
# Codecs that players and browsers take in an mp4; any other sound becomes AAC.
MP4_SOUND = frozenset(("aac", "ac3", "alac", "eac3", "flac", "mp3", "mp3float", "opus", "libopus"))
AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)
PREROLL_S = 0.1  # sound kept from before the first frame, so that its decoder has settled by then


def find_videos(folder: str | Path) -> list[Path]:
    """The videos below a folder, sorted, by ``VIDEO_SUFFIXES`` in any case. Links are followed, hidden files skipped.

    Raises:
        SkelactError: it is no folder, or may not be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise SkelactError(f"{folder}: expected a folder of videos, found {found}")

    def refuse(error: OSError) -> None:
        raise SkelactError(f"{error.filename}: no permission to read this folder; change it or leave it out")

    videos, seen = [], set()
    for parent, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        if (real := os.path.realpath(parent)) in seen:  # a link to what is above or beside it
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        videos += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(path for path in videos if path.suffix.lower() in VIDEO_SUFFIXES)


def probe_video(path: str | Path) -> VideoInfo:
    """What a video says of itself. Its first frame is decoded, as only that tells the rotation.

    Raises:
        SkelactError: as ``read_frames``.
    """
    with _open_video(path) as (container, stream):
        first = next(_decode(container, stream, _Damage()), None)
        if first is None:
            raise _undecodable(path, stream)
        height, width = _turned(np.empty((first.height, first.width)), _turn(first)).shape
        return VideoInfo(
            str(path), (height, width), _fps(stream), max(0, stream.frames), _start_s(first, container, stream)
        )


def read_frames(path: str | Path, on_damage: Callable[[str], None] | None = None) -> Iterator[Frame]:
    """Decode a video, frame by frame, in constant memory.

    Pictures are as shown: rotation metadata is applied, and frames of another size than the first are scaled
    to it. Pixels are taken as square: a sample aspect ratio is ignored, so keypoints are in stored pixels.

    Times come from the container, relative to the first frame. They always increase: a frame without a time,
    or with one not after its predecessor's, is put 1 / fps after it.

    Damaged packets are skipped, and a video that is cut short gives the frames before the cut.

    Args:
        path: of the video.
        on_damage: called after the last frame with what was wrong; None warns by the logger ``skelact``.

    Yields:
        Frames with index 0, 1, ... and BGR uint8 images (H, W, 3).

    Raises:
        SkelactError: the file is missing, a folder, empty, not readable or not a video, its index is missing,
            it has sound only, or no frame can be decoded.
    """
    with _open_video(path) as (container, stream):
        frame_s, upright = 1 / _fps(stream), Upright()
        damage = _Damage()
        start: float | None = None
        num_frames, time_s = 0, 0.0
        for frame in _decode(container, stream, damage):
            told_s = _time_s(frame, stream)
            if num_frames == 0:
                start = told_s
            elif told_s is not None and start is not None and told_s - start > time_s:
                time_s = told_s - start
            else:
                time_s += frame_s
            yield Frame(num_frames, time_s, upright(frame))
            num_frames += 1
        if num_frames == 0:
            raise _undecodable(path, stream)
        on_damage = on_damage or (lambda problem: logger.warning("%s: %s", path, problem))
        if damage.packets:
            on_damage(f"{damage.packets} damaged packets; {num_frames} frames decoded")
        claimed_s = _claimed_duration(container, stream)
        if damage.broken or _ends_in_packet(container, path) or damage.last_s[1] < EARLY_END * claimed_s - frame_s:
            found = f"{num_frames} frames, {time_s + frame_s:.1f} of {claimed_s:.1f} s"
            on_damage(f"the file is cut short: {found} decoded")


def read_ahead(frames: Iterable[Item], depth: int = 8) -> Generator[Item, None, None]:
    """The same frames, decoded in a thread of their own while the caller works on those before.

    Args:
        frames: of ``read_frames``, or anything else that takes time to make.
        depth: frames to hold ready at most.
    """
    ready: queue.Queue[Item | BaseException | None] = queue.Queue(depth)
    stopped = threading.Event()

    def put(item: Item | BaseException | None) -> None:
        while not stopped.is_set():
            with suppress(queue.Full):
                return ready.put(item, timeout=0.1)

    def decode() -> None:
        try:
            for frame in frames:
                put(frame)
                if stopped.is_set():
                    return
            put(None)
        except BaseException as error:  # surfaces in the caller
            put(error)

    thread = threading.Thread(target=decode, name="decoder", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()


class VideoWriter:
    """Writes an H.264 mp4 that browsers play: every frame at its own time, with the sound of the source.

    The file appears at ``path`` on leaving the ``with`` block; after an exception nothing does, and an older
    file stays. Pictures with an odd height or width, which H.264 in yuv420p can't hold, get their last row or
    column twice. Sound is copied as it is where an mp4 takes its codec, else re-encoded to AAC; it keeps its
    offset to the first frame. Sound that can't be decoded is left out.

    Args:
        path: of the mp4; missing folders are created.
        img_shape: (H, W) of the pictures, in pixels.
        fps: average frames per second; the last frame lasts 1 / fps, unless ``audio_from`` tells.
        audio_from: the source video, whose sound is copied, and whose end and shape of pixels are kept.

    Raises:
        SkelactError: the file can't be written (disk full, no permission, ...), ``audio_from`` is no video,
            or no frame was written.
    """

    def __init__(
        self, path: str | Path, img_shape: tuple[int, int], fps: float, audio_from: str | Path | None = None
    ) -> None:
        self.path = Path(path)
        self.img_shape = img_shape
        self.fps = fps if 0 < fps < MAX_FPS else DEFAULT_FPS
        self.audio_from = audio_from
        self._last_pts = -1

    def __enter__(self) -> VideoWriter:
        height, width = self.img_shape
        with ExitStack() as stack:
            url = f"file:{stack.enter_context(atomic_path(self.path))}"
            self._output = stack.enter_context(av.open(url, "w", "mp4", options={"movflags": "+faststart"}))
            # Without B-frames decoding order is showing order, and any frame rate survives exactly.
            x264 = {"crf": "20", "preset": "veryfast", "bf": "0"}
            rate = Fraction(self.fps).limit_denominator(1001)
            self._video = self._output.add_stream("libx264", rate=rate, options=x264)
            self._video.width, self._video.height = width + width % 2, height + height % 2
            self._video.pix_fmt = "yuv420p"
            context = self._video.codec_context
            context.time_base = TIME_BASE
            context.colorspace = context.color_primaries = context.color_trc = BT709
            context.color_range = LIMITED_RANGE
            self._sound = _Sound(self.audio_from, self._output, stack) if self.audio_from else None
            if self._sound:
                context.sample_aspect_ratio = self._sound.pixel_aspect
            stack.push(self._finish)  # last in, first out: while all of the above is open
            self._output.start_encoding()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def write(self, image: Array, time_s: float) -> None:
        """Add a picture.

        Args:
            image: (H, W, 3) BGR uint8.
            time_s: when it is shown, in seconds from the first frame; later than the one before.

        Raises:
            ValueError: the picture has another shape than ``img_shape``.
        """
        height, width = self.img_shape
        if image.shape != (height, width, 3):
            raise ValueError(f"expected a picture of shape {(height, width, 3)}, got {image.shape}")
        if height % 2 or width % 2:
            image = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="bgr24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="itu709")
        frame.time_base = TIME_BASE
        frame.pts = self._last_pts = max(round(time_s / TIME_BASE), self._last_pts + 1)
        self._output.mux(self._video.encode(frame))
        if self._sound:
            self._sound.copy(until_s=time_s)

    def _finish(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        if isinstance(error, av.FFmpegError) and not isinstance(error, OSError):
            raise SkelactError(f"cannot write {self.path}: FFmpeg says {error.strerror}") from error
        if error is not None:
            return
        if self._last_pts < 0:
            raise SkelactError(f"cannot write {self.path}: expected frames, found none")
        stop_s = 0.0
        if self._sound:
            self._sound.copy()
            stop_s = self._sound.video_stop_s
        packets = self._video.encode(None)
        if packets:
            last_frame = round(stop_s / TIME_BASE) - self._last_pts
            packets[-1].duration = last_frame if last_frame > 0 else round(1 / (self.fps * TIME_BASE))
        self._output.mux(packets)


class _Sound:
    """The sound of a source video, put into an output packet by packet, and what is kept of its pictures.

    Attributes:
        pixel_aspect: width to height of its pixels as they are shown; 1 where nothing tells.
        video_stop_s: where the pictures end, in seconds from the first frame; whole once all is copied.
    """

    def __init__(self, path: str | Path, output: Any, stack: ExitStack) -> None:
        with _open_video(path) as (container, stream):
            first = next(_decode(container, stream, _Damage()), None)
            aspect = Fraction(stream.sample_aspect_ratio or 1)
            self.pixel_aspect = 1 / aspect if first is not None and not _turn(first)[0] else aspect  # on its side
            self._start_s = 0.0 if first is None or _is_avi(stream) else _time_s(first, stream) or 0.0
        self.video_stop_s = 0.0
        self._output = output
        self._container, self._video = stack.enter_context(_open_video(path))
        self._audio = next((audio for audio in self._container.streams.audio if audio.codec_context), None)
        self._copied = self._audio is not None and self._audio.codec_context.name in MP4_SOUND
        if self._copied:
            self._target = output.add_stream_from_template(self._audio)
        elif self._audio:
            rate = self._audio.rate if self._audio.rate in AAC_RATES else 48000
            layout = "mono" if self._audio.channels == 1 else "stereo"
            self._target = output.add_stream("aac", rate=rate, layout=layout)
        self._packets = self._read()
        self._next: Any = None

    def copy(self, until_s: float = math.inf) -> None:
        """Write the packets that start until then; next to their pictures, so that players need not seek."""
        while self._next is None or self._next.dts * self._next.time_base <= until_s:
            if self._next is not None:
                self._output.mux(self._next)
            self._next = next(self._packets, None)
            if self._next is None:
                return

    def _read(self) -> Iterator[Any]:
        """Packets for the output, at times relative to the first frame."""
        last_dts, last_s = -math.inf, (0.0, 0.0)
        streams = [stream for stream in (self._video, self._audio) if stream]
        for packet in _packets(self._container, streams, _Damage()):
            if packet.stream is self._video:
                last_s = max(last_s, _span_s(packet, self._video))
                self.video_stop_s = max(0.0, last_s[1] - self._start_s)
                continue
            for sound in [packet] if self._copied else self._encode(packet):
                if sound.dts is None or sound.pts is None or sound.dts <= last_dts:
                    continue
                last_dts = sound.dts
                shift = round(self._start_s / sound.time_base)
                sound.pts, sound.dts = sound.pts - shift, sound.dts - shift
                if (sound.pts + (sound.duration or 0)) * sound.time_base > -PREROLL_S:
                    sound.stream = self._target
                    yield sound

    def _encode(self, packet: Any) -> list[Any]:
        """The packet's sound as AAC; what can't be decoded is left out."""
        try:
            frames = packet.decode()
        except av.FFmpegError:
            frames = []
        if packet.size == 0:  # the end
            frames.append(None)
        return [sound for frame in frames for sound in self._target.encode(frame)]


@dataclass
class _Damage:
    """What went wrong while a video was read, and how far it went.

    Attributes:
        packets: how many were damaged.
        broken: whether the container broke off.
        last_s: where the last picture begins and ends, in the container's time.
    """

    packets: int = 0
    broken: bool = False
    last_s: tuple[float, float] = (0.0, 0.0)


@contextmanager
def _open_video(path: str | Path) -> Iterator[tuple[Any, Any]]:
    """The open container and its picture stream."""
    path = Path(path)
    try:
        if path.is_dir():
            raise SkelactError(f"{path}: expected a video, found a folder; give the path of one file")
        if not path.exists():
            is_address = re.match(r"[a-z]{3,5}:[/\\]", str(path))  # a drive has one letter
            hint = "skelact live takes addresses" if is_address else "give the path of a video"
            raise SkelactError(f"{path}: no such file; {hint}")
        if not path.is_file():  # it would be opened more than once
            raise SkelactError(f"{path}: expected a file, found a pipe or a device; write it into a file first")
        if path.is_file() and path.stat().st_size == 0:
            raise SkelactError(f"{path}: expected a video, found an empty file; copy or download it again")
        # "file:" and the whitelist: a path is never an address, and a playlist opens nothing on the network.
        options = {"protocol_whitelist": "file"}
        # torchvision < 0.26 has FFmpeg log to Python; closing a decoder, whose threads then wait for the GIL, hangs.
        av.logging.set_level(None)
        container = av.open(f"file:{path}", options=options, **ANY_METADATA)
    except PermissionError:
        raise SkelactError(f"{path}: no permission to read it; change its permissions or copy it") from None
    except (av.FFmpegError, OSError) as error:
        raise SkelactError(f"{path}: {_why_not_opened(path, error)}") from error
    with container:
        # The cover of a sound file is a picture stream too, and "tty" paints any text as a terminal.
        cover = av.stream.Disposition.attached_pic
        pictures = [stream for stream in container.streams.video if not stream.disposition & cover]
        if not pictures and container.streams.audio:
            raise SkelactError(f"{path}: expected a video, found sound only; give a file with pictures")
        if not pictures or container.format.name == "tty":
            raise SkelactError(f"{path}: expected a video, found no pictures in it; give another file")
        yield container, pictures[0]


def _why_not_opened(path: Path, error: Exception) -> str:
    with path.open("rb") as file:
        start = file.read(8)
    if start[4:] in (b"ftyp", b"mdat", b"moov", b"free", b"wide", b"skip"):
        return "expected a whole mp4, found one cut short, without its index (moov); copy or record it again"
    reason = getattr(error, "strerror", None) or error
    other = f"another kind of file or a damaged one ({reason}); give another file"
    return f"expected a video, found {kind_of(path, VIDEO_SUFFIXES) or other}"


def _undecodable(path: str | Path, stream: Any) -> SkelactError:
    codec = stream.codec_context.name if stream.codec_context else "unknown codec"
    return SkelactError(
        f"{path}: expected frames, found none that can be decoded ({codec}); copy the file again, "
        "or convert it to H.264"
    )


def _packets(container: Any, streams: list[Any], damage: _Damage) -> Iterator[Any]:
    """Packets until the end or the break, then an empty one for each stream, which flushes its decoder."""
    try:
        yield from container.demux(streams)
    except av.FFmpegError:
        damage.broken = True
        for stream in streams:
            flush = av.Packet()
            flush.stream = stream
            yield flush


def _decode(container: Any, stream: Any, damage: _Damage) -> Iterator[Any]:
    """Frames of the picture stream, past damaged packets."""
    if not stream.codec_context:
        return
    stream.thread_type = "AUTO"
    for packet in _packets(container, [stream], damage):
        damage.last_s = max(damage.last_s, _span_s(packet, stream))
        if packet.is_corrupt:
            damage.packets += 1
            continue
        try:
            frames = packet.decode()
        except av.FFmpegError:
            damage.packets += 1
            continue
        damage.packets += any(frame.is_corrupt for frame in frames)  # decoded, but patched up
        yield from frames


def _is_avi(stream: Any) -> bool:
    """An AVI tells no presentation times; FFmpeg makes them up, wrong where there are B-frames."""
    return bool(stream.container.format.name == "avi")


def _time_s(timed: Any, stream: Any) -> float | None:
    """When a packet or frame is shown, in seconds of the container's time, if it tells."""
    time = timed.dts if timed.pts is None or _is_avi(stream) else timed.pts
    return None if time is None else float(time * stream.time_base)


def _start_s(first: Any, container: Any, stream: Any) -> float:
    """When the first picture is shown, in seconds from the start of the file."""
    told = None if _is_avi(stream) else _time_s(first, stream)
    return 0.0 if told is None else max(0.0, told - (container.start_time or 0) / av.time_base)


def _span_s(packet: Any, stream: Any) -> tuple[float, float]:
    """Where a packet begins and ends, in seconds of the container's time; 0 if it does not tell.

    The last of all is the one that begins last: beside a hole in time the duration of a B-frame holds all of it.
    """
    start_s = _time_s(packet, stream)
    return (0.0, 0.0) if start_s is None else (start_s, start_s + float((packet.duration or 0) * stream.time_base))


def _claimed_duration(container: Any, stream: Any) -> float:
    """Seconds that the container claims for the pictures, or for everything; 0 if it makes no claim."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return float((container.duration or 0) / av.time_base)


def _ends_in_packet(container: Any, path: str | Path) -> bool:
    """Whether an MPEG transport stream, which claims no duration, stops within one of its packets."""
    if container.format.name != "mpegts":
        return False
    layouts = ((188, 0), (192, 4), (204, 0))  # plain, after a time (m2ts), with error correction: size, place of 0x47
    with open(path, "rb") as file:
        start = file.read(3 * 204)
    size = next((size for size, sync in layouts if start[sync : sync + 2 * size + 1 : size] == b"GGG"), 188)
    return Path(path).stat().st_size % size != 0


def _fps(stream: Any) -> float:
    """Average frames per second."""
    rates = (stream.average_rate, stream.guessed_rate, stream.base_rate)
    return next((float(rate) for rate in rates if rate and 0 < rate < MAX_FPS), DEFAULT_FPS)


class Upright:
    """Decoded frames as players show them: BGR images (H, W, 3), turned and of the size of the first."""

    def __init__(self) -> None:
        self._size: tuple[int, int] | None = None
        self._turn = 1, 0, 0, 1

    def __call__(self, frame: Any) -> Array:
        """The next frame."""
        if self._size is None:
            self._size, self._turn = (frame.width, frame.height), _turn(frame)
        width, height = self._size
        # Players assume BT.709 in HD video that does not tell, FFmpeg BT.601.
        colors = "itu709" if frame.colorspace == UNSPECIFIED and frame.height >= 720 else None
        picture = frame.to_ndarray(format="bgr24", width=width, height=height, src_colorspace=colors)
        return _turned(picture, self._turn)


def _turn(frame: Any) -> tuple[int, int, int, int]:
    """(a, b, c, d) of the display matrix: a pixel (x, y) is shown at (a x + c y, b x + d y).

    Asked of the first frame only: PyAV's side data keep their frame alive until the next garbage collection.
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return 1, 0, 0, 1
    a, b, _, c, d = np.frombuffer(bytes(matrix), "=i4")[:5].tolist()
    return a, b, c, d


def _turned(image: Array, turn: tuple[int, int, int, int]) -> Array:
    """Turn and mirror a picture, in steps of 90 degrees."""
    a, b, c, d = turn
    if abs(b) > abs(a):
        image = image.swapaxes(0, 1)
        a, d = c, b
    return np.ascontiguousarray(image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])
