"""`sketchify-rt export-server`: a model -> a model repository of NVIDIA Triton Inference Server."""

from __future__ import annotations

from pathlib import Path

import click

from sketchify_rt.errors import OptionsError, SketchifyError

_EPILOG = """\b
Examples:
  sketchify-rt export-server models/                       # lite, for ONNX Runtime
  sketchify-rt export-server models/ --precision int8 --max-batch 32
  sketchify-rt export-server models/ --backend tensorrt --engine lite.engine

\b
The server takes what the U-Net takes, black and white tiles; docs/server.md tells how
to make them. Exit code: 0 written; 1 failed; 2 wrong usage.
"""


@click.command(epilog=_EPILOG)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--model",
    metavar="NAME|PATH",
    default="lite",
    show_default=True,
    help="A shipped model (see info), or an ONNX file with its manifest beside it.",
)
@click.option(
    "--backend",
    type=click.Choice(["onnx", "tensorrt"]),
    default="onnx",
    show_default=True,
    help="What the server runs it with; tensorrt needs --engine.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "int8"]),
    help="Of --backend onnx: int8 is the model's quantized form. Default: fp32.",
)
@click.option(
    "--engine",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="An engine of build-engine --output, built with the server's TensorRT for its card.",
)
@click.option(
    "--max-batch",
    metavar="N",
    type=click.IntRange(min=1),
    help="Images that go together at most. Default: 8, or what the engine takes.",
)
@click.option(
    "--queue-delay",
    metavar="MICROSECONDS",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    help="How long an image may wait for others.",
)
@click.option("--overwrite", is_flag=True, help="Replace a model of that name in DIR.")
@click.option("-q", "--quiet", is_flag=True, help="No summary.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    folder: Path,
    model: str,
    backend: str,
    precision: str | None,
    engine: Path | None,
    max_batch: int | None,
    queue_delay: int,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Write a model into DIR, a model repository of NVIDIA Triton Inference Server."""
    if (backend == "tensorrt") != (engine is not None):
        raise click.UsageError("--backend tensorrt and --engine go together", ctx)
    if engine is not None and precision is not None:
        raise click.UsageError("--precision is for --backend onnx; an engine has its own", ctx)
    from sketchify_rt import models
    from sketchify_rt.integrations import triton_server

    try:
        opened = models.load(model)
        if engine is not None:
            served = triton_server.of_engine(engine, opened, max_batch)
        else:
            kind: models.Kind = "int8" if precision == "int8" else "float"
            served = triton_server.of_onnx(opened, kind, max_batch or 8)
        written = triton_server.write(folder, served, queue_delay, overwrite)
    except OptionsError as error:
        raise click.UsageError(str(error), ctx) from error
    except SketchifyError as error:
        raise click.ClickException(str(error)) from error
    if not quiet:
        click.echo(f"{written}: {served.backend}, batches of up to {served.max_batch}")
