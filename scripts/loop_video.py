"""A longer video of a short one, again and again, or a smaller one: what a benchmark of minutes needs.

    python scripts/loop_video.py ../shared/media/jesse_dance.mp4 dance.mp4 --times 5
    python scripts/loop_video.py hd.mp4 720p.mp4 --times 1 --height 720

Nothing is encoded anew but for another height.
"""

from __future__ import annotations

from pathlib import Path

import av
import click
import cv2

from skelact.video import VideoWriter, probe_video, read_frames


@click.command()
@click.argument("video", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--times", default=5, show_default=True, type=click.IntRange(1))
@click.option("--height", type=click.IntRange(16), help="Scale to so many lines; once, whatever --times.")
def main(video: Path, out: Path, times: int, height: int | None) -> None:
    """Write VIDEO TIMES times, one after the other, to OUT."""
    if height:
        info = probe_video(video)
        width = round(info.img_shape[1] * height / info.img_shape[0])
        with VideoWriter(out, (height, width), info.fps) as writer:
            for frame in read_frames(video):
                writer.write(cv2.resize(frame.image, (width, height), interpolation=cv2.INTER_AREA), frame.time_s)
        return
    with av.open(str(video)) as container, av.open(str(out), "w") as output:
        source = container.streams.video[0]
        target = output.add_stream_from_template(source)
        packets = [packet for packet in container.demux(source) if packet.size]
        ends = [(packet.pts or 0) + (packet.duration or 0) for packet in packets]
        length = max(ends) - min(packet.pts or 0 for packet in packets)
        for time in range(times):
            for packet in packets:
                copy = av.Packet(bytes(packet))
                copy.stream, copy.time_base, copy.is_keyframe = target, packet.time_base, packet.is_keyframe
                copy.duration = packet.duration
                copy.pts = (packet.pts or 0) + time * length
                copy.dts = (packet.dts or 0) + time * length
                output.mux(copy)


if __name__ == "__main__":
    main()
