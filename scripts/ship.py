"""Put trained weights into weights/, and their hashes into its index.json.

    python scripts/ship.py action skelact-daily runs/daily/joint/best.safetensors runs/daily/bone/best.safetensors
    python scripts/ship.py pose skelact-pose runs/pose/skelact-pose.pt

Several classifiers are shipped as streams of one name, with equal weights. Model cards (weights/NAME.md) are written by
hand.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import click

from skelact.checkpoint import load_checkpoint
from skelact.files import sha256_of
from skelact.shipped import INDEX

WEIGHTS = Path(__file__).parents[1] / "weights"


@click.command()
@click.argument("kind", type=click.Choice(["action", "pose"]))
@click.argument("name")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
def main(kind: str, name: str, files: tuple[Path, ...]) -> None:
    """Copy FILES and rewrite the index."""
    path = WEIGHTS / INDEX
    index: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    rows: dict[str, Any] = {}
    streams = {}
    for file in files:
        row: dict[str, Any] = {"kind": kind, "layout": "coco"}
        member = name
        if kind == "action":
            checkpoint = load_checkpoint(file)
            clips = checkpoint.clips
            member = f"{name}-{clips.stream}" if len(files) > 1 else name
            row |= {"stream": clips.stream, "layout": clips.layout.name, "class_names": checkpoint.class_names}
            streams[member] = 1.0
        target = WEIGHTS / f"{member}{file.suffix}"
        shutil.copyfile(file, target)
        rows[member] = {**row, "file": target.name, "sha256": sha256_of(target), "card": f"{name}.md"}
        click.echo(f"{target}: {target.stat().st_size / 1e6:.2f} MB")
    if len(files) > 1:
        first = next(iter(rows.values()))
        fused = {"kind": kind, "layout": first["layout"], "class_names": first["class_names"], "streams": streams}
        rows = {name: {**fused, "card": f"{name}.md"}, **rows}
    kept = {key: row for key, row in index.items() if row.get("card") != f"{name}.md"}
    path.write_text(json.dumps({**rows, **kept}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
