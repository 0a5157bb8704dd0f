"""The command ``skelact report``."""

from __future__ import annotations

import click


@click.command()
@click.argument("result", type=click.Path(), metavar="RESULT.json")
@click.option("--out", type=click.Path(), required=True, metavar="FILE.html", help="The page to write.")
@click.option(
    "--video",
    type=click.Path(),
    metavar="PATH",
    help="Show this in place of the source, such as the overlay; a folder of them if there are several sources.",
)
@click.option("--embed", is_flag=True, help="Put the video into the page, to send it to somebody; up to 300 MB.")
def report(result: str, out: str, video: str | None, embed: bool) -> None:
    """Make a page of the JSON of skelact predict: video, timeline by person and action, scores, skeletons.

    It is one HTML file that loads nothing from a network. A click on a segment shows it in the video.

    \b
    Example:
        skelact report result.json --out report.html --video overlay.mp4
    """
    from skelact.report import write_report

    write_report(result, out, video=video, embed=embed)
