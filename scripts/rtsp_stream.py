"""Does `skelact live` stand a real RTSP server that is cut and restored? It needs GStreamer's server:

    apt-get install gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-{base,good,bad,ugly}
    python scripts/rtsp_stream.py --pose-model ../shared/weights/yolov8n-pose_int8_openvino_model \\
        --model ../shared/reference/stgcnpp_coco_random.pth --stream joint

Plays a test picture as H.264 over RTSP from a process of its own, kills that after a while and starts it again; prints
when frames came and what `skelact live` reports. The server runs in the system's Python (--python), which has `gi`.
"""

from __future__ import annotations

import subprocess
import threading
import time
from itertools import pairwise
from typing import Any

import click

import skelact

SERVER = """
import sys
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
server = GstRtspServer.RTSPServer(service=sys.argv[1], address="127.0.0.1")
factory = GstRtspServer.RTSPMediaFactory(shared=True)
factory.set_launch(
    "( videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=240,framerate=15/1 "
    "! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=15 ! rtph264pay name=pay0 pt=96 )"
)
server.get_mount_points().add_factory("/test", factory)
server.attach(None)
GLib.MainLoop().run()
"""


@click.command(help=__doc__)
@click.option("--pose-model", required=True)
@click.option("--model", required=True)
@click.option("--stream", help="Of a checkpoint that does not tell.")
@click.option("--python", default="/usr/bin/python3", show_default=True)
@click.option("--port", default=8554, show_default=True)
@click.option("--seconds", default=25.0, show_default=True)
@click.option("--cut-at", default=8.0, show_default=True)
@click.option("--cut-for", default=4.0, show_default=True)
def main(
    pose_model: str,
    model: str,
    stream: str | None,
    python: str,
    port: int,
    seconds: float,
    cut_at: float,
    cut_for: float,
) -> None:
    """Run the server and skelact."""
    servers: list[subprocess.Popen[bytes]] = []
    came: list[float] = []
    ended = threading.Event()

    def start() -> None:
        servers.append(subprocess.Popen([python, "-c", SERVER, str(port)]))

    def cut_and_restore() -> None:
        while not ended.is_set() and (not came or came[-1] < cut_at):
            time.sleep(0.1)
        servers[-1].kill()
        ended.wait(cut_for)
        start()

    def on_frame(view: Any) -> None:
        came.append(session.report.duration_s)

    start()
    time.sleep(2.0)
    session = skelact.live(
        f"rtsp://127.0.0.1:{port}/test",
        model,
        pose_model=pose_model,
        stream=stream,
        duration_s=seconds,
        timeout_s=5.0,
        on_frame=on_frame,
    )
    threading.Thread(target=cut_and_restore, daemon=True).start()
    try:
        for event in session:
            print(event.kind, event.subject, event.class_name)
    finally:
        ended.set()
        servers[-1].kill()
    pause_s, at_s = max((b - a, a) for a, b in pairwise(came))
    print(f"frames from {came[0]:.1f} to {came[-1]:.1f} s, the longest pause {pause_s:.1f} s, at {at_s:.1f} s")
    print(session.report)
    assert session.report.num_reconnects == 1


if __name__ == "__main__":
    main()
