"""The commands ``skelact weights ...``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TextIO

import click

from skelact.errors import SkelactError

if TYPE_CHECKING:
    from skelact.weights import FusedModel, PublishedModel

SCHEMA_VERSION = 1


@click.group()
def weights() -> None:
    """Published checkpoints: list, download and find them.

    They are kept in a folder of your cache; the environment variable SKELACT_WEIGHTS names another one,
    SKELACT_WEIGHTS_URL a mirror to download from.

    \b
    Example:
        skelact weights fetch ntu60-2d-two-stream
    """


@weights.command("list")
@click.option(
    "json_file",
    "--json",
    type=click.File("w", encoding="utf-8", atomic=True),
    metavar="PATH|-",
    help="Write JSON there (- is stdout) instead of the table.",
)
def list_weights(json_file: TextIO | None) -> None:
    """Show the zoo and what of it is on this machine.

    TOP-1 is the published accuracy in percent, with 10 clips; for a fusion, STREAM shows the weights.

    \b
    Example:
        skelact weights list --json -
    """
    from skelact.weights import ZOO, cache_folder

    rows = [_describe(model) for model in ZOO.values()]
    if json_file is not None:
        content = {"schema_version": SCHEMA_VERSION, "folder": str(cache_folder()), "models": rows}
        json_file.write(json.dumps(content, indent=2) + "\n")
        return
    click.echo(f"{'NAME':<22} {'LAYOUT':<9} {'TOP-1':>6}  {'CACHED':<7} STREAM")
    for row in rows:
        cached = "wrong" if row["problem"] else "yes" if row["cached"] else "no"
        click.echo(f"{row['name']:<22} {row['layout']:<9} {row['top1']:>6.2f}  {cached:<7} {row['stream']}")
    click.echo(f"folder: {cache_folder()}", err=True)
    for problem in dict.fromkeys(row["problem"] for row in rows if row["problem"]):
        click.echo(problem, err=True)


@weights.command("fetch")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--quiet", "-q", is_flag=True, help="No progress bar, no messages but errors.")
def fetch_weights(names: tuple[str, ...], quiet: bool) -> None:
    """Download models and verify them.

    A fused model brings all its streams, `all` the whole zoo. A download that breaks goes on where it
    stopped when you run the command again.

    \b
    Example:
        skelact weights fetch ntu60-2d-joint ntu60-2d-bone
    """
    from skelact.weights import ZOO, fetch, streams

    chosen = tuple(ZOO) if "all" in names else names
    wanted = list(dict.fromkeys(model.name for name in chosen for model, _ in streams(name)))
    failed = {}
    for name in wanted:
        try:
            path = fetch(name, progress=not quiet)
        except SkelactError as error:
            if len(wanted) == 1:
                raise
            failed[name] = error
            click.echo(f"Error: {error}", err=True)
        else:
            if not quiet:
                click.echo(f"{name}: {path}", err=True)
    if failed:
        raise SkelactError(f"{len(failed)} of {len(wanted)} not fetched: {', '.join(failed)}")


@weights.command("path")
@click.argument("name")
def path_of_weights(name: str) -> None:
    """Print where a downloaded model lies.

    A fused model has one line for each stream.

    \b
    Example:
        cp "$(skelact weights path ntu60-2d-joint)" .
    """
    from skelact.weights import locate, streams

    paths = [locate(model.name) for model, _ in streams(name)]
    if None in paths:
        raise SkelactError(f"{name} is not on this machine; run: skelact weights fetch {name}")
    for path in paths:
        click.echo(path)


def _describe(model: PublishedModel | FusedModel) -> dict[str, Any]:
    """One row of the list, in JSON types."""
    from skelact.weights import locate, streams

    members = streams(model.name)
    first = members[0][0]
    fusion = " + ".join(f"{weight:g} {member.stream}" for member, weight in members)
    paths, problem = [], None
    for member, _ in members:
        try:
            paths.append(locate(member.name))
        except SkelactError as error:
            paths.append(None)
            problem = str(error)
    return {
        "name": model.name,
        "stream": fusion if len(members) > 1 else first.stream,
        "layout": first.layout,
        "num_classes": len(first.class_names),
        "top1": model.top1,
        "source": model.source,
        "members": [{"name": member.name, "weight": weight, "url": member.url} for member, weight in members],
        "cached": None not in paths,
        "paths": [str(path) for path in paths if path],
        "problem": problem,
    }
