"""The command ``skelact export``."""

from __future__ import annotations

import click

from skelact import cli_options


@click.command()
@click.argument("model", metavar="CHECKPOINT")
@click.option(
    "--format",
    type=click.Choice(["onnx", "openvino", "torchscript"]),
    help="What to write. Default: by the suffix of --out.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False),
    metavar="PATH",
    help="The file: .onnx, .xml (OpenVINO; its .bin lies beside it) or .torchscript. "
    "Default: beside the checkpoint; of a zoo name, here.",
)
@cli_options.stream
@cli_options.layout
@cli_options.class_names
@cli_options.offline
@click.option("--json", "json_path", metavar="PATH|-", help="Write the check as JSON; - is stdout.")
def export(
    model: str,
    format: str | None,
    out: str | None,
    stream: str | None,
    layout: str | None,
    class_names: str | None,
    json_path: str | None,
) -> None:
    """Write a classifier for ONNX Runtime, OpenVINO or TorchScript.

    CHECKPOINT is a file or the zoo name of a single stream. The batch is dynamic; class names and clip settings are in
    the file's metadata. The file is loaded again and both networks see 20 random inputs: it is written only if no logit
    differs by more than 0.001. predict and test take it as --model, info too.

    \b
    Example:
        skelact export runs/mine/best.safetensors --format onnx
        skelact predict video.mp4 --model runs/mine/best.onnx
    """
    if format is None and out is None:
        raise click.UsageError("expected --format or --out")
    import skelact
    from skelact import writers
    from skelact.exporting import files_of
    from skelact.files import check_writable

    cli_options.apart(("--json", json_path), *(("--out", path) for path in files_of(model, out, format)))
    if json_path not in (None, "-"):
        check_writable(str(json_path), [model, layout, class_names])
    names = cli_options.names_in(class_names)
    command = cli_options.command_line()
    report = skelact.export(model, out, format, stream=stream, layout=layout, class_names=names, command=command)
    if json_path:
        writers.write_json(writers.record(command, {"export": report.to_dict()}), json_path)
    if json_path != "-":
        batches = ", ".join(map(str, report.batch_sizes))
        click.echo(
            f"{report.path}: {report.num_inputs} random inputs in batches of {batches}: logits up to "
            f"{report.max_logit:.2g} differ by {report.max_difference:.1e} at most"
        )
