"""`sketchify-rt export-server`: writes a model repository of NVIDIA Triton Inference Server."""

from __future__ import annotations

from pathlib import Path

import click

from sketchify_rt.cli import common, printable

_EPILOG = """\b
Examples:
  sketchify-rt export-server models/                       # lite, for ONNX Runtime
  sketchify-rt export-server models/ --precision int8 --max-batch 32
  sketchify-rt export-server models/ --backend tensorrt --engine lite.engine

\b
The server runs the U-Net alone: its inputs are black and white tiles, see docs/server.md.
Exit code: 0 written; 1 failed; 2 wrong usage.
"""


@common.command(epilog=_EPILOG)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@common.model
@common.option(
    "--backend",
    type=click.Choice(["onnx", "tensorrt"]),
    default="onnx",
    help="Runtime in the server. tensorrt needs --engine.",
)
@common.option(
    "--precision",
    type=click.Choice(["fp32", "int8"]),
    help="For --backend onnx. int8 is the model's quantized form. Default: fp32.",
)
@common.option(
    "--engine",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Engine of build-engine --output, built with the server's TensorRT for its GPU.",
)
@common.option(
    "--max-batch",
    metavar="N",
    type=click.IntRange(min=1),
    help="Maximum number of images in a batch. Default: 8, or the maximum of the engine.",
)
@common.option(
    "--queue-delay",
    metavar="MICROSECONDS",
    type=click.IntRange(min=0),
    default=100,
    help="Maximum time that an image waits for others.",
)
@common.option("--overwrite", is_flag=True, help="Replace a model of that name in DIR.")
@common.quiet
def command(
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
        raise click.UsageError("--backend tensorrt and --engine must be used together")
    if engine is not None and precision is not None:
        raise click.UsageError("--precision and --engine cannot be used together")
    from sketchify_rt import models
    from sketchify_rt.integrations import triton_server

    opened = models.load(model)
    if engine is not None:
        served = triton_server.of_engine(engine, opened, max_batch)
    else:
        kind: models.Kind = "int8" if precision == "int8" else "float"
        served = triton_server.of_onnx(opened, kind, max_batch or 8)
    written = triton_server.write(folder, served, queue_delay, overwrite)
    if not quiet:
        batches = f"batches of up to {served.max_batch}"
        click.echo(printable(f"{written}: {served.backend}, {batches}"))
