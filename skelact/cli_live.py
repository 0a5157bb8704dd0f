"""The command ``skelact live``."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import click

from skelact import cli_options
from skelact.errors import SkelactError

if TYPE_CHECKING:
    from skelact.live_session import View


@click.command()
@click.argument("source", metavar="SOURCE")
@cli_options.models
@cli_options.fusion_weights
@cli_options.pose_model
@cli_options.backend
@cli_options.precision
@cli_options.device
@cli_options.tracker
@click.option("--clean/--no-clean", default=True, show_default=True, help="Clean the poses of each window.")
@cli_options.window
@cli_options.step
@cli_options.min_duration
@cli_options.subjects
@cli_options.roi
@cli_options.unknown_below
@cli_options.classes
@cli_options.stream
@cli_options.layout
@cli_options.class_names
@cli_options.offline
@click.option("--duration", type=cli_options.number("duration_s"), metavar="S", help="Stop after so many seconds.")
@click.option(
    "--timeout",
    type=cli_options.number("timeout_s"),
    default=10.0,
    show_default=True,
    metavar="S",
    help="Seconds for which a stream may not answer.",
)
@click.option(
    "--reconnect/--no-reconnect", default=True, show_default=True, help="Connect again to a stream that broke off."
)
@click.option("--serve", metavar="HOST:PORT", help="Serve a page with the picture and the events.")
@click.option(
    "--token",
    metavar="TOKEN",
    help="What the page of --serve asks for. Default: none on this machine, else a random one.",
)
@click.option("--show", is_flag=True, help="Show the picture in a window; q or Esc ends.")
@click.option(
    "--report-every",
    type=cli_options.number("report_every"),
    default=10.0,
    show_default=True,
    metavar="S",
    help="Seconds from one report on stderr to the next; 0 for none but the last.",
)
@click.option("--quiet", is_flag=True, help="No reports on stderr, no warnings.")
def live(
    source: str,
    models: tuple[str, ...],
    class_names: str | None,
    unknown_below: float | str | None,
    window: list[float] | None,
    step: float,
    min_duration: float,
    duration: float | None,
    timeout: float,
    serve: str | None,
    token: str | None,
    show: bool,
    report_every: float,
    quiet: bool,
    **options: Any,
) -> None:
    """Tell what people do as they do it.

    SOURCE is the index of a camera (0), the address of a stream (rtsp://, http://) or a video file, which plays at its
    own rate. Each line on stdout is a JSON object: an action that starts or ends, with its time, people and score.
    Frames that can't be looked at in time are dropped. Ctrl-C ends.

    \b
    Examples:
        skelact live 0 --show
        skelact live rtsp://camera/stream --serve 127.0.0.1:8000
    """
    if token and not serve:
        raise click.UsageError("--token is of the page that --serve HOST:PORT makes")
    if (
        show
        and sys.platform.startswith("linux")
        and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    ):
        raise SkelactError("--show: expected a screen, found none; --serve 127.0.0.1:8000 shows it in a browser")
    cli_options.hush(quiet)
    from skelact import live_session as library
    from skelact.live_page import LivePage, draw, parse_address

    viewers: list[Callable[[Callable[[], View]], None]] = []

    def on_frame(view: Callable[[], View]) -> None:
        for viewer in viewers:
            viewer(view)

    with ExitStack() as stack:
        page = stack.enter_context(LivePage(*parse_address(serve), token)) if serve else None
        if page:
            viewers.append(page.show)
            click.echo(f"serving on {page.url}", err=True)
        session = library.live(
            source,
            models,
            class_names=cli_options.names_in(class_names),
            unknown_below=unknown_below,
            window_s=window,
            step_s=step,
            min_duration_s=min_duration,
            duration_s=duration,
            timeout_s=timeout,
            on_frame=on_frame,
            **options,
        )
        if show:
            viewers.append(lambda view: _show(draw(view()), session))
        if report_every and not quiet:  # while a stream is away, too
            stack.enter_context(_every(report_every, lambda: click.echo(str(session.report), err=True)))
        for number in (signal.SIGINT, signal.SIGTERM):
            stack.callback(signal.signal, number, signal.signal(number, lambda *_: session.stop()))
        for event in session:
            content = library.event_json(event)
            click.echo(json.dumps(content))
            if page:
                page.tell(content)
        if not quiet:
            click.echo(str(session.report), err=True)


@contextmanager
def _every(seconds: float, work: Callable[[], None]) -> Iterator[None]:
    """Do something again and again, in a thread."""
    done = threading.Event()

    def repeat() -> None:
        while not done.wait(seconds):
            work()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _show(image: Any, session: Any) -> None:
    import cv2

    cv2.imshow("skelact live", image)
    if cv2.waitKey(1) & 0xFF in (ord("q"), 27):
        session.stop()
