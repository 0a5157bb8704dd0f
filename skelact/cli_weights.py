"""The commands ``skelact weights ...``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from skelact.cli_options import command_line
from skelact.errors import SkelactError

if TYPE_CHECKING:
    from skelact.shipped import ShippedModel
    from skelact.weights import FusedModel, PublishedModel


@click.group()
def weights() -> None:
    """Models by name: those that ship with skelact, and published checkpoints to download.

    Downloads are kept in a folder of your cache; the environment variable SKELACT_WEIGHTS names another one,
    SKELACT_WEIGHTS_URL a mirror to download from. With SKELACT_OFFLINE=1 nothing is downloaded.

    \b
    Example:
        skelact weights fetch ntu60-2d-two-stream
    """


@weights.command("list")
@click.option(
    "json_path",
    "--json",
    metavar="PATH|-",
    help="Write JSON there (- is stdout) instead of the table.",
)
def list_weights(json_path: str | None) -> None:
    """Show all names and what is on this machine.

    Of published models, TOP-1 is the published accuracy in percent, with 10 clips; of those that ship, see
    `skelact weights show`. For a fusion, STREAM shows the weights.

    \b
    Example:
        skelact weights list --json -
    """
    from skelact.shipped import shipped
    from skelact.weights import YOLO26N_POSE, ZOO, weights_folder
    from skelact.writers import record, write_json

    rows = [*map(_describe, (*shipped().values(), *ZOO.values(), YOLO26N_POSE))]
    if json_path is not None:
        write_json(record(command_line(), {"folder": str(weights_folder()), "models": rows}), json_path)
        return
    click.echo(f"{'NAME':<22} {'LAYOUT':<9} {'TOP-1':>6}  {'HERE':<7} STREAM")
    for row in rows:
        here = "wrong" if row["problem"] else "ships" if row["shipped"] else "yes" if row["cached"] else "no"
        top1 = "" if row["top1"] is None else f"{row['top1']:.2f}"
        click.echo(f"{row['name']:<22} {row['layout']:<9} {top1:>6}  {here:<7} {row['stream']}")
    click.echo(f"folder: {weights_folder()}", err=True)
    for problem in dict.fromkeys(row["problem"] for row in rows if row["problem"]):
        click.echo(problem, err=True)


@weights.command("fetch")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--quiet", is_flag=True, help="No progress bars, no warnings.")
def fetch_weights(names: tuple[str, ...], quiet: bool) -> None:
    """Download models and verify them.

    A fused model brings all its streams, `all` the whole zoo. A download that breaks goes on where it
    stopped when you run the command again.

    \b
    Example:
        skelact weights fetch ntu60-2d-joint ntu60-2d-bone
    """
    from skelact.shipped import shipped
    from skelact.weights import ZOO, fetch, streams

    if not quiet:
        for name in sorted(shipped().keys() & set(names)):
            click.echo(f"{name}: ships with skelact, nothing to fetch", err=True)
    asked = [name for name in names if name != "all" and name not in shipped()]
    chosen = [*(ZOO if "all" in names else ()), *asked]
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
    """Print where a model's file lies.

    A fused model has one line for each stream.

    \b
    Example:
        cp "$(skelact weights path ntu60-2d-joint)" .
    """
    from skelact.shipped import shipped, shipped_path
    from skelact.weights import locate, streams

    if name in shipped():
        paths = [shipped_path(stream) for stream, _ in shipped()[name].streams or ((name, 1.0),)]
    else:
        found = [locate(model.name) for model, _ in streams(name)]
        paths = [path for path in found if path]
        if len(paths) < len(found):
            raise SkelactError(f"{name} is not on this machine; run: skelact weights fetch {name}")
    for path in paths:
        click.echo(path)


@weights.command("show")
@click.argument("name")
def show_weights(name: str) -> None:
    """Print a model's classes and its card: data, recipe, figures, what it is bad at.

    \b
    Example:
        skelact weights show skelact-daily
    """
    from skelact.shipped import folder, shipped
    from skelact.weights import YOLO26N_POSE, ZOO, streams

    if name in shipped():
        model = shipped()[name]
        class_names = model.class_names
        card = folder() / model.card
        text = card.read_text(encoding="utf-8").strip() if model.card and card.is_file() else ""
    elif name == YOLO26N_POSE.name:
        class_names = ()
        text = f"Published by ultralytics, a pose model: {YOLO26N_POSE.source}."
    else:
        first = streams(name)[0][0]
        row = _describe(ZOO[name])
        class_names = first.class_names
        text = f"Published by {first.source}: top-1 {row['top1']:.2f} % with 10 clips, stream {row['stream']}."
    if class_names:
        click.echo(click.wrap_text(f"{len(class_names)} classes: {', '.join(class_names)}", 100, "", "  "))
        click.echo()
    click.echo(text)


def _describe(model: ShippedModel | PublishedModel | FusedModel) -> dict[str, Any]:
    """One row of the list, in JSON types."""
    from skelact.shipped import ShippedModel, shipped, shipped_path
    from skelact.weights import locate, streams

    members: list[tuple[Any, float]]
    path_of: Callable[[str], Path | None]
    if isinstance(model, ShippedModel):
        members = [(shipped()[name], weight) for name, weight in model.streams or ((model.name, 1.0),)]
        path_of = shipped_path
    else:
        members, path_of = [*streams(model.name)], locate
    first = members[0][0]
    fusion = " + ".join(f"{weight:g} {member.stream}" for member, weight in members)
    paths, problem = [], None
    for member, _ in members:
        try:
            paths.append(path_of(member.name))
        except SkelactError as error:
            paths.append(None)
            problem = str(error)
    return {
        "name": model.name,
        "stream": fusion if len(members) > 1 else first.stream or "pose",
        "layout": first.layout,
        "num_classes": len(first.class_names),
        "top1": getattr(model, "top1", None),
        "source": getattr(model, "source", "skelact"),
        "members": [
            {"name": member.name, "weight": weight, "url": getattr(member, "url", None)} for member, weight in members
        ],
        "shipped": path_of is shipped_path,
        "cached": None not in paths,
        "paths": [str(path) for path in paths if path],
        "problem": problem,
    }
