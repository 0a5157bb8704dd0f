"""The live page: the picture with everybody's label as MJPEG, and the events as server-sent events.

It is served on this machine only, unless told otherwise; on any other address it asks for a token.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import os
import queue
import secrets
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import cv2

from skelact.errors import SkelactError
from skelact.live_session import View
from skelact.render import Overlay
from skelact.structures import Array

MAX_VIEWERS = 8  # of pictures and of events together
KEPT_EVENTS = 50  # shown to who comes later
JPEG_QUALITY = 80
STALL_S = 10.0  # who takes no data for so long is disconnected

PAGE = b"""<!doctype html><html lang="en"><meta charset="utf-8"><title>skelact live</title>
<style>body{font:15px system-ui;margin:1rem;background:#1c2026;color:#eee}img{max-width:100%}
table{border-collapse:collapse}td{padding:.1rem .8rem .1rem 0}</style>
<h1>skelact live</h1><img id="video" alt="the live picture"><table id="events"></table>
<script>
const source = new EventSource("events" + location.search);
source.onopen = () => {  // perhaps once more, and of another run
  document.getElementById("events").textContent = "";  // all are told again
  document.getElementById("video").src = "video" + location.search;
};
source.onmessage = (message) => {
  const event = JSON.parse(message.data), table = document.getElementById("events"), row = table.insertRow(0);
  for (const text of [event.event, event.start_s.toFixed(1) + " s", "person " + event.track_ids.join("+"),
                      event.class_name, event.score.toFixed(2)]) row.insertCell().textContent = text;
  while (table.rows.length > 50) table.deleteRow(50);
};
</script></html>"""


class _Server(ThreadingHTTPServer):
    allow_reuse_address = os.name == "posix"  # on Windows two could serve on one port

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of viewers, and of those who only look for open ports, that go in the middle of a request."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _ServerOnIPv6(_Server):
    address_family = socket.AF_INET6


class LivePage:
    """Serves what happens. A context manager: it serves from entering to leaving.

    Args:
        host: address to listen on.
        port: 0 for any that is free.
        token: what viewers have to know; made up where None, and needed only if ``host`` is not of this machine.

    Attributes:
        url: to open in a browser, with the token if there is one.

    Raises:
        SkelactError: the address can't be listened on.
    """

    def __init__(self, host: str, port: int, token: str | None = None) -> None:
        self.is_loopback = _is_loopback(host)
        self.token = token if token or self.is_loopback else secrets.token_urlsafe(16)
        self._jpeg: bytes = b""
        self._number = 0
        self._fresh = threading.Condition()
        self._video_viewers = 0
        self._viewers = threading.BoundedSemaphore(MAX_VIEWERS)
        self._events: deque[str] = deque(maxlen=KEPT_EVENTS)
        self._listeners: list[queue.Queue[str]] = []
        self._lock = threading.Lock()
        self._closed = threading.Event()
        try:
            self._server = (_ServerOnIPv6 if ":" in host else _Server)((host, port), _handler(self))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise SkelactError(f"cannot serve on {host}:{port}: {reason}; choose another address or port") from None
        self._server.daemon_threads = True
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._server.server_address[1]}/" + (
            f"?token={quote(self.token, safe='')}" if self.token else ""
        )

    def __enter__(self) -> LivePage:
        threading.Thread(target=self._server.serve_forever, name="page", daemon=True).start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._closed.set()
        with self._fresh:
            self._fresh.notify_all()
        self._server.shutdown()
        self._server.server_close()

    def show(self, view: Callable[[], View]) -> None:
        """Take a picture; nothing is drawn while nobody looks."""
        if not self._video_viewers:
            return
        _, encoded = cv2.imencode(".jpg", draw(view()), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        with self._fresh:
            self._jpeg, self._number = encoded.tobytes(), self._number + 1
            self._fresh.notify_all()

    def tell(self, event: dict[str, Any]) -> None:
        """Take an event."""
        line = json.dumps(event)
        with self._lock:
            self._events.append(line)
            for listener in self._listeners:
                with suppress(queue.Full):
                    listener.put_nowait(line)

    def admits(self, host: str, query: str) -> bool:
        """Whether a request comes from somebody who may look.

        Without a token, only names of this machine are answered: a web page that has its own name point here must not
        read what is shown (DNS rebinding).
        """
        if self.token:
            given = parse_qs(query).get("token", [""])[0]
            return hmac.compare_digest(given.encode(), self.token.encode())
        with suppress(ValueError):
            return _is_loopback(urlsplit(f"//{host}").hostname or "")
        return False

    def stream_video(self, write: Callable[[bytes], Any]) -> None:
        """Write pictures until the viewer goes, each once a second at least: only writing tells who has gone."""
        with self._lock:
            self._video_viewers += 1
        try:
            seen = 0
            while not self._closed.is_set():
                with self._fresh:
                    if self._number == seen:
                        self._fresh.wait(timeout=1.0)
                    seen, jpeg = self._number, self._jpeg
                if not jpeg:
                    continue
                write(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg) + jpeg + b"\r\n")
        finally:
            with self._lock:
                self._video_viewers -= 1

    def stream_events(self, write: Callable[[bytes], Any]) -> None:
        """Write events until the viewer goes."""
        listener: queue.Queue[str] = queue.Queue(maxsize=1000)
        with self._lock:
            for line in self._events:
                listener.put_nowait(line)
            self._listeners.append(listener)
        try:
            while not self._closed.is_set():
                try:
                    write(f"data: {listener.get(timeout=1.0)}\n\n".encode())
                except queue.Empty:
                    write(b": still here\n\n")
        finally:
            with self._lock:
                self._listeners.remove(listener)

    def viewer(self) -> Any:
        """One of the places for viewers, or None if all are taken."""
        return self._viewers if self._viewers.acquire(blocking=False) else None


def draw(view: View) -> Array:
    """The picture with people and labels."""
    return Overlay(view.sequence, regions=view.regions).draw(view.frame.image, 0, captions=view.captions)


def parse_address(text: str) -> tuple[str, int]:
    """``HOST:PORT``, ``[IPv6]:PORT`` or ``PORT``.

    Raises:
        SkelactError: it is none.
    """
    try:
        parts = urlsplit(f"//127.0.0.1:{text}" if text.isdigit() else f"//{text}")
        if parts.hostname and parts.port is not None and "@" not in text and not parts.path:
            return parts.hostname, parts.port
    except ValueError:
        pass
    raise SkelactError(f"--serve {text}: expected HOST:PORT, such as 127.0.0.1:8000")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _handler(page: LivePage) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = STALL_S

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            if not page.admits(self.headers.get("Host", ""), url.query):
                self.send_error(403, "Wrong host or token")
            elif url.path == "/":
                self._start("text/html; charset=utf-8", len(PAGE))
                self.wfile.write(PAGE)
            elif url.path == "/video":
                self._stream("multipart/x-mixed-replace; boundary=frame", page.stream_video)
            elif url.path == "/events":
                self._stream("text/event-stream", page.stream_events)
            else:
                self.send_error(404)

        def _start(self, content_type: str, length: int | None = None) -> None:
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.send_header("Cache-Control", "no-store")
            self.send_header("Referrer-Policy", "no-referrer")
            self.send_header("X-Content-Type-Options", "nosniff")
            if length is not None:
                self.send_header("Content-Length", str(length))
            self.end_headers()

        def _stream(self, content_type: str, stream: Callable[[Callable[[bytes], Any]], None]) -> None:
            place = page.viewer()
            if place is None:
                self.send_error(503, "Too many viewers")
                return
            try:
                with suppress(OSError):  # the viewer went
                    self._start(content_type)
                    stream(self.wfile.write)
            finally:
                place.release()
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            """Requests are not logged: they hold the token."""

    return Handler
