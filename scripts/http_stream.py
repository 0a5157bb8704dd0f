"""A camera on the network: a small server of MJPEG, that can be cut and restored, can say nothing, or rubbish."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import cv2

from skelact.structures import Array


class HttpStream:
    """Serves pictures over and over. A context manager.

    Args:
        images: (H, W, 3) BGR.
        fps: of the stream.

    Attributes:
        url: of the stream; ``url + "silent"`` never answers, ``url + "rubbish"`` sends no pictures.
    """

    def __init__(self, images: Sequence[Array], fps: float) -> None:
        self.jpegs = [cv2.imencode(".jpg", image)[1].tobytes() for image in images]
        self.fps = fps
        self._is_cut = threading.Event()
        self._closed = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"

    def __enter__(self) -> HttpStream:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()

    def cut(self) -> None:
        """Break all connections and refuse new ones."""
        self._is_cut.set()

    def restore(self) -> None:
        """Serve again."""
        self._is_cut.clear()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        stream = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/silent":
                    stream._closed.wait()
                    return
                if stream._is_cut.is_set():
                    self.send_error(503)
                    return
                self.send_response(200)
                with suppress(OSError):
                    if self.path == "/rubbish":
                        self.send_header("Content-Type", "video/mp4")
                        self.end_headers()
                        self.wfile.write(bytes(range(256)) * 4000)
                        return
                    self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                    self.end_headers()
                    stream._send(self.wfile)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler

    def _send(self, out: Any) -> None:
        start_s, k = time.monotonic(), 0
        while not self._is_cut.is_set() and not self._closed.is_set():
            jpeg = self.jpegs[k % len(self.jpegs)]
            out.write(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg) + jpeg + b"\r\n")
            k += 1
            time.sleep(max(0.0, start_s + k / self.fps - time.monotonic()))
