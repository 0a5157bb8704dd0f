"""Videos in and out, on small ones made here."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from skelact.errors import SkelactError
from skelact.structures import Array, Frame
from skelact.video import VideoWriter, find_videos, probe_video, read_frames

RATE = 44100
IDENTITY = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)


def picture(index: int, img_shape: tuple[int, int] = (96, 128)) -> Array:
    """Grey, brighter with every frame, with a red top left and a blue bottom left corner."""
    height, width = img_shape
    image = np.full((height, width, 3), 40 + 3 * index % 160, np.uint8)
    image[: height // 4, : width // 4] = (0, 0, 255)
    image[-(height // 4) :, : width // 4] = (255, 0, 0)
    return image


def make_video(
    path: Path,
    times: Sequence[float] = tuple(i / 30 for i in range(30)),
    codec: str = "libx264",
    sound: str | None = None,
    sound_start_s: float = 0.0,
    options: dict[str, str] | None = None,
    noise: bool = False,
) -> Path:
    """A video of ``picture(i)`` at given times; its sound is a click at 0.5 s of the file."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=30)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 30 if path.suffix == ".avi" else 9000)
        audio = container.add_stream(sound, rate=RATE, layout="stereo") if sound else None
        packets = []
        for index, time_s in enumerate(times):
            image = rng.integers(0, 255, (96, 128, 3), dtype=np.uint8) if noise else picture(index)
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame.time_base = stream.codec_context.time_base
            frame.pts = round(time_s / frame.time_base)
            packets += stream.encode(frame)
        packets += stream.encode(None)
        if audio:
            samples = np.zeros((2, RATE), np.float32)
            samples[:, RATE // 2 : RATE // 2 + 300] = 0.9
            first = round(sound_start_s * RATE)
            for start in range(first, RATE, 1024):
                block = np.ascontiguousarray(samples[:, start : start + 1024])
                heard = av.AudioFrame.from_ndarray(block, format="fltp", layout="stereo")
                heard.sample_rate, heard.time_base, heard.pts = RATE, Fraction(1, RATE), start
                packets += audio.encode(heard)
            packets += audio.encode(None)
        container.mux(sorted(packets, key=lambda packet: packet.dts * packet.time_base))
    return path


def turned(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Write (a, b, c, d) into the mp4's display matrix: (x, y) is shown at (a x + c y, b x + d y)."""
    a, b, c, d = (value << 16 for value in matrix)
    content = path.read_bytes()
    at = content.index(IDENTITY, content.index(b"tkhd"))
    path.write_bytes(content[:at] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + content[at + 36 :])
    return path


def copy_video(source: Path, path: Path) -> Path:
    info = probe_video(source)
    with VideoWriter(path, info.img_shape, info.fps, audio_from=source) as writer:
        for frame in read_frames(source):
            writer.write(frame.image, frame.time_s)
    return path


def times_of(path: Path) -> list[float]:
    return [frame.time_s for frame in read_frames(path)]


def duration_of(path: Path) -> float:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return float(stream.duration * stream.time_base)


def click_of(path: Path) -> tuple[str, float]:
    """The codec of the sound, and the seconds from the first picture to the click."""
    with av.open(str(path)) as container:
        first = next(container.decode(container.streams.video[0])).time
    with av.open(str(path)) as container:
        audio = container.streams.audio[0]
        to_float = av.AudioResampler(format="fltp", layout="mono", rate=RATE)
        for decoded in container.decode(audio):
            for heard in to_float.resample(decoded):
                loud = np.flatnonzero(np.abs(heard.to_ndarray()[0]) > 0.4)
                if len(loud):
                    return audio.codec_context.name, heard.time + loud[0] / RATE - first
    raise AssertionError("no click")


def color(image: Array, y: float, x: float) -> str:
    blue, _, red = image[int(y * image.shape[0]), int(x * image.shape[1])].astype(int)
    return "red" if red > blue + 100 else "blue" if blue > red + 100 else "grey"


@contextmanager
def as_nobody(folder: Path) -> Iterator[None]:
    """Without root's right to everything; root's own folders above are opened for it."""
    if os.name != "posix":
        pytest.skip("permissions as POSIX has them")
    if os.geteuid() != 0:
        yield
        return
    closed = [parent for parent in folder.parents if not parent.stat().st_mode & 0o001]
    modes = [parent.stat().st_mode for parent in closed]
    for parent, mode in zip(closed, modes, strict=True):
        parent.chmod(mode | 0o011)
    try:
        os.seteuid(65534)
        yield
    finally:
        os.seteuid(0)
        for parent, mode in zip(closed, modes, strict=True):
            parent.chmod(mode)


# --- reading -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "libx264"),
        ("a.mkv", "libx264"),
        ("a.avi", "mpeg4"),
        ("a.avi", "libx264"),
        ("a.ts", "libx264"),
    ],
)
def test_every_frame_comes_at_its_time(tmp_path: Path, name: str, codec: str) -> None:
    path = make_video(tmp_path / name, codec=codec)
    info = probe_video(path)
    frames: list[Frame] = list(read_frames(path))
    assert info.img_shape == (96, 128)
    assert info.fps == pytest.approx(30, abs=0.1)
    assert [frame.index for frame in frames] == list(range(30))
    assert [frame.time_s for frame in frames] == pytest.approx([i / 30 for i in range(30)], abs=1e-3)
    for frame in frames:
        assert frame.image.shape == (96, 128, 3)
        assert frame.image.dtype == np.uint8
        assert abs(int(frame.image[48, 64, 1]) - int(picture(frame.index)[48, 64, 1])) < 6
    assert color(frames[0].image, 0.1, 0.1) == "red"


def test_a_variable_rate_and_a_late_first_frame_keep_their_times(tmp_path: Path) -> None:
    times = [0.5, 0.54, 0.6, 1.5, 1.51, 2.0]
    path = make_video(tmp_path / "a.mp4", times)
    assert times_of(path) == pytest.approx([time_s - 0.5 for time_s in times], abs=1e-3)


def test_times_increase_where_the_container_has_them_wrong(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", codec="mpeg4")
    content = bytearray(path.read_bytes())
    at = content.index(b"stts") + 8  # (number of entries, count, ticks): every frame now lasts no time at all
    entries = struct.unpack(">i", content[at : at + 4])[0]
    for entry in range(entries):
        content[at + 8 + 8 * entry : at + 12 + 8 * entry] = struct.pack(">i", 0)
    path.write_bytes(content)
    times = times_of(path)
    assert len(times) == 30
    assert np.all(np.diff(times) > 0)
    assert 0 < probe_video(path).fps < 1000


@pytest.mark.parametrize(
    ("matrix", "img_shape", "red", "blue"),
    [
        ((0, 1, -1, 0), (128, 96), (0.1, 0.9), (0.1, 0.1)),  # a phone held upright: a quarter turn clockwise
        ((0, -1, 1, 0), (128, 96), (0.9, 0.1), (0.9, 0.9)),
        ((-1, 0, 0, -1), (96, 128), (0.9, 0.9), (0.1, 0.9)),
        ((-1, 0, 0, 1), (96, 128), (0.1, 0.9), (0.9, 0.9)),  # mirrored
    ],
)
def test_rotation_is_applied(
    tmp_path: Path,
    matrix: tuple[int, int, int, int],
    img_shape: tuple[int, int],
    red: tuple[float, float],
    blue: tuple[float, float],
) -> None:
    path = turned(make_video(tmp_path / "a.mp4"), matrix)
    image = next(read_frames(path)).image
    assert probe_video(path).img_shape == image.shape[:2] == img_shape
    assert color(image, *red) == "red"
    assert color(image, *blue) == "blue"
    assert image.flags.c_contiguous
    upright = copy_video(path, tmp_path / "b.mp4")
    assert color(next(read_frames(upright)).image, *red) == "red"


def test_names_that_look_like_addresses_are_files(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4").rename(tmp_path / "http:ä %03d.mp4")
    assert len(times_of(path)) == 30
    assert len(times_of(copy_video(path, tmp_path / "concat:b %d.mp4"))) == 30


@pytest.mark.parametrize("read", [probe_video, lambda path: list(read_frames(path))])
@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("missing", "no such file"),
        ("folder", "found a folder"),
        ("empty", "found an empty file"),
        ("text", "another kind of file"),
        ("text.txt", "found no pictures|found text"),
        ("no index", r"without its index \(moov\)"),
        ("sound", "found sound only"),
        ("sound with a cover", "found sound only"),
        ("no frame", "none that can be decoded"),
    ],
)
def test_what_is_no_video_is_told_in_one_line(tmp_path: Path, read, kind: str, told: str) -> None:
    path = tmp_path / "a.mp4"
    if kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("I am a video.\n" * 100)
    elif kind == "text.txt":
        path = tmp_path / "a.txt"
        path.write_text("I am a video.\n" * 100)
    elif kind == "no index":
        content = make_video(path).read_bytes()
        path.write_bytes(content[: content.index(b"moov") - 4])
    elif kind.startswith("sound"):
        path = tmp_path / "a.m4a"
        with av.open(str(path), "w", format="mp4") as container:
            audio = container.add_stream("aac", rate=RATE, layout="mono")
            cover = container.add_stream("png", rate=1) if "cover" in kind else None
            if cover:
                cover.width, cover.height, cover.pix_fmt = 16, 16, "rgb24"
                cover.disposition = av.stream.Disposition.attached_pic.value
                container.mux(cover.encode(av.VideoFrame(16, 16, "rgb24")))
            silence = np.zeros((1, 1024), np.float32)
            frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
            frame.sample_rate = RATE
            container.mux([*audio.encode(frame), *audio.encode(None)])
    elif kind == "no frame":
        content = make_video(path).read_bytes()
        start, stop = content.index(b"mdat") + 4, content.index(b"moov") - 4
        path.write_bytes(content[:start] + bytes(stop - start) + content[stop:])
    with pytest.raises(SkelactError, match=told) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_without_permission(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4")
    path.chmod(0)
    with as_nobody(path), pytest.raises(SkelactError, match="no permission to read"):
        probe_video(path)


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mkv", "libx264", {}),
        ("a.avi", "mpeg4", {}),
        ("a.ts", "libx264", {}),
        ("a.mp4", "libx264", {"movflags": "+faststart"}),
    ],
)
def test_a_video_cut_short_gives_the_frames_before_the_cut(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, codec: str, options: dict[str, str]
) -> None:
    path = make_video(tmp_path / name, codec=codec, options=options, noise=True)
    with caplog.at_level(logging.WARNING, "skelact"):
        assert len(times_of(path)) == 30
    assert caplog.messages == []
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2 // 188 * 188 + 100])  # within a packet of a transport stream
    with caplog.at_level(logging.WARNING, "skelact"):
        assert 8 <= len(times_of(path)) <= 18
    assert any("damaged" in message or "cut short" in message for message in caplog.messages)


@pytest.mark.parametrize("divisor", [192, 204])
def test_a_transport_stream_cut_short_is_told_whatever_its_size(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, divisor: int
) -> None:
    """A size that other kinds of streams, of longer packets, may have when they are whole."""
    path = make_video(tmp_path / "a.ts", noise=True)
    whole = path.read_bytes()
    size = next(size for size in range(len(whole) // 2, len(whole)) if size % divisor == 0 and size % 188)
    path.write_bytes(whole[:size])
    with caplog.at_level(logging.WARNING, "skelact"):
        times_of(path)
    assert any("cut short" in message for message in caplog.messages)


def test_damage_in_the_middle_costs_its_own_frames_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = make_video(tmp_path / "a.mp4", noise=True)
    content = bytearray(path.read_bytes())
    start, stop = content.index(b"mdat") + 4, content.index(b"moov") - 4
    middle = (start + stop) // 2
    content[middle : middle + 4000] = np.random.default_rng(0).bytes(4000)
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING, "skelact"):
        times = times_of(path)
    assert len(times) >= 24
    assert times[-1] == pytest.approx(29 / 30, abs=1e-3)
    assert any("damaged packets" in message for message in caplog.messages)


def test_find_videos_looks_everywhere_but_in_hidden_places(tmp_path: Path) -> None:
    for name in ("b.MP4", "a.avi", "sub/c.mkv", "notes.txt", ".hidden.mp4", ".trash/d.mp4", "sub/.e.mp4"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert find_videos(tmp_path) == [tmp_path / "a.avi", tmp_path / "b.MP4", tmp_path / "sub" / "c.mkv"]
    (tmp_path / "sub" / "above").symlink_to(tmp_path)
    elsewhere = tmp_path / ".elsewhere"
    elsewhere.mkdir()
    (elsewhere / "f.mp4").touch()
    (tmp_path / "linked").symlink_to(elsewhere)
    found = find_videos(tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in found] == ["a.avi", "b.MP4", "linked/f.mp4", "sub/c.mkv"]
    with pytest.raises(SkelactError, match="found a file"):
        find_videos(tmp_path / "a.avi")
    with pytest.raises(SkelactError, match="found nothing"):
        find_videos(tmp_path / "nowhere")


# --- writing -----------------------------------------------------------------------------------------------


def test_a_variable_rate_survives_the_roundtrip(tmp_path: Path) -> None:
    source = make_video(tmp_path / "a.mkv", [0.0, 0.04, 0.1, 1.0, 1.01, 1.5], codec="mpeg4")
    copy = copy_video(source, tmp_path / "b.mp4")
    assert times_of(copy) == pytest.approx(times_of(source), abs=1e-4)


def test_pixels_keep_their_shape(tmp_path: Path) -> None:
    source, out = tmp_path / "dv.mp4", tmp_path / "out.mp4"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        picture = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="bgr24")
        container.mux([*stream.encode(picture), *stream.encode(None)])
    with VideoWriter(out, (48, 64), 25, audio_from=source) as writer:
        writer.write(np.zeros((48, 64, 3), np.uint8), 0)
    with av.open(str(out)) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no pipes with names")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(SkelactError, match="expected a file, found a pipe or a device"):
        probe_video(tmp_path / "pipe.mp4")
    with pytest.raises(SkelactError, match="skelact live takes addresses"):
        probe_video("http://example.org/a.mp4")


def test_the_last_frame_keeps_its_duration(tmp_path: Path) -> None:
    source = make_video(tmp_path / "a.mp4", [0.0, 0.04, 0.1, 1.0], codec="mpeg4")
    content = bytearray(source.read_bytes())
    at = content.index(b"stts") + 8
    entries = struct.unpack(">i", content[at : at + 4])[0]
    last = at + 8 + 8 * (entries - 1)
    content[last : last + 4] = struct.pack(">i", 2 * struct.unpack(">i", content[at + 8 : at + 12])[0])
    source.write_bytes(content)
    with av.open(str(source)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.pts is not None]
        stop_s = max(float((packet.pts + packet.duration) * packet.time_base) for packet in packets)
    assert stop_s > 1.01
    assert duration_of(copy_video(source, tmp_path / "b.mp4")) == pytest.approx(stop_s, abs=1e-3)


def test_beside_a_hole_in_time_the_last_frame_is_still_the_last(tmp_path: Path) -> None:
    times = [k / 30 + 5 * (k >= 20) for k in range(40)]
    source = make_video(tmp_path / "a.mp4", times, codec="libx264")
    with av.open(str(source)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.pts is not None]
        assert max((packet.pts + packet.duration) * packet.time_base for packet in packets) > times[-1] + 1
    assert duration_of(copy_video(source, tmp_path / "b.mp4")) == pytest.approx(times[-1] + 1 / 30, abs=2e-3)


def test_without_a_source_the_last_frame_lasts_one_frame(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", (96, 128), 25.0) as writer:
        for index in range(10):
            writer.write(picture(index), index / 25)
    assert duration_of(tmp_path / "a.mp4") == pytest.approx(0.4, abs=1e-4)


def test_browsers_play_what_is_written(tmp_path: Path) -> None:
    path = copy_video(make_video(tmp_path / "a.avi", codec="mpeg4"), tmp_path / "b.mp4")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # plays while it is still loading


@pytest.mark.parametrize(
    ("name", "sound", "written"),
    [
        ("a.mp4", "aac", "aac"),
        ("a.ts", "aac", "aac"),
        ("a.mkv", "flac", "flac"),
        ("a.avi", "pcm_s16le", "aac"),
        ("a.mov", "pcm_s16le", "aac"),
    ],
)
@pytest.mark.parametrize("first_s", [0.0, 0.2])
def test_sound_is_kept_and_in_time(tmp_path: Path, name: str, sound: str, written: str, first_s: float) -> None:
    codec = "mpeg4" if name.endswith(".avi") else "libx264"
    if name.endswith(".avi"):
        first_s = 0.0  # an AVI has no start
    source = make_video(tmp_path / name, [first_s + i / 30 for i in range(30)], codec=codec, sound=sound)
    codec_name, click_s = click_of(copy_video(source, tmp_path / "b.mp4"))
    assert codec_name == written
    assert click_s == pytest.approx(0.5 - first_s, abs=0.005)


def test_sound_that_starts_late_stays_late(tmp_path: Path) -> None:
    source = make_video(tmp_path / "a.mov", sound="pcm_s16le", sound_start_s=0.3)
    assert click_of(copy_video(source, tmp_path / "b.mp4"))[1] == pytest.approx(0.5, abs=0.005)


def test_copied_sound_is_bit_for_bit_the_same(tmp_path: Path) -> None:
    def sounds(path: Path) -> list[bytes]:
        with av.open(str(path)) as container:
            return [bytes(packet) for packet in container.demux(audio=0) if packet.size]

    source = make_video(tmp_path / "a.mp4", sound="aac")
    assert sounds(copy_video(source, tmp_path / "b.mp4")) == sounds(source)


@pytest.mark.parametrize(("height", "width"), [(95, 127), (95, 128), (96, 127)])
def test_odd_sizes_get_their_edge_twice(tmp_path: Path, height: int, width: int) -> None:
    with VideoWriter(tmp_path / "a.mp4", (height, width), 30.0) as writer:
        for index in range(5):
            writer.write(picture(index, (height, width)), index / 30)
    image = next(read_frames(tmp_path / "a.mp4")).image
    assert image.shape == (96, 128, 3)
    assert np.abs(image[48].astype(int) - picture(0)[48, 64]).max() < 12


def write_one(path: Path, image: Array | None = None, error: BaseException | None = None) -> None:
    with VideoWriter(path, (96, 128), 30.0) as writer:
        writer.write(picture(0) if image is None else image, 0.0)
        if error:
            raise error


def test_a_picture_of_another_size_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a picture of shape"):
        write_one(tmp_path / "a.mp4", picture(0, (48, 64)))


# The third is what FFmpeg raises.
@pytest.mark.parametrize(
    ("error", "told"),
    [
        (KeyboardInterrupt("stop"), "stop"),
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (av.error.classes[errno.ENOSPC](errno.ENOSPC, "No space left on device"), "the disk is full"),
    ],
)
def test_the_old_file_survives_a_failure(tmp_path: Path, error: BaseException, told: str) -> None:
    path = tmp_path / "a.mp4"
    path.write_text("old")
    with pytest.raises((SkelactError, KeyboardInterrupt), match=told):
        write_one(path, error=error)
    assert path.read_text() == "old"
    assert [found.name for found in tmp_path.iterdir()] == ["a.mp4"]


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a small disk here")
    try:
        noise = np.random.default_rng(0).integers(0, 255, (960, 1280, 3), dtype=np.uint8)
        writer = VideoWriter(folder / "a.mp4", (960, 1280), 30.0)
        with pytest.raises(SkelactError, match="the disk is full"), writer:
            writer.write(noise, 0.0)
        assert list(folder.iterdir()) == []
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_no_frame_makes_no_file(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "a.mp4", (96, 128), 30.0)
    with pytest.raises(SkelactError, match="expected frames, found none"), writer:
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_permission(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    with as_nobody(folder / "a.mp4"), pytest.raises(SkelactError, match="no permission to write"):
        write_one(folder / "a.mp4")


def test_sound_from_no_video_is_an_error_before_any_work(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "a.mp4", (96, 128), 30.0, audio_from=tmp_path / "missing.mp4")
    with pytest.raises(SkelactError, match="no such file"), writer:
        raise AssertionError("not reached")
    assert list(tmp_path.iterdir()) == []
