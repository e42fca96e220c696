"""`sketchify-rt export-server`: writes a model repository of NVIDIA Triton Inference Server."""

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
The server runs the U-Net alone: its inputs are black and white tiles, see docs/server.md.
Exit code: 0 written; 1 failed; 2 wrong usage.
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
    help="Runtime in the server. tensorrt needs --engine.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "int8"]),
    help="For --backend onnx. int8 is the model's quantized form. Default: fp32.",
)
@click.option(
    "--engine",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Engine of build-engine --output, built with the server's TensorRT for its GPU.",
)
@click.option(
    "--max-batch",
    metavar="N",
    type=click.IntRange(min=1),
    help="Maximum number of images in a batch. Default: 8, or the maximum of the engine.",
)
@click.option(
    "--queue-delay",
    metavar="MICROSECONDS",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    help="Maximum time that an image waits for others.",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing model of that name in DIR.")
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
        raise click.UsageError("--backend tensorrt and --engine must be used together", ctx)
    if engine is not None and precision is not None:
        raise click.UsageError("--precision and --engine cannot be used together", ctx)
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
