"""`sketchify-rt info`: shows versions, backends and models, and how to get what is missing."""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import click

from sketchify_rt import __version__
from sketchify_rt.cli import common, printable
from sketchify_rt.errors import BackendUnavailable, ModelError
from sketchify_rt.options import Options

_PACKAGES = (
    "numpy",
    "opencv-python-headless",
    "pillow",
    "pillow-heif",
    "pillow-jxl-plugin",
    "openvino",
    "torch",
    "triton",
    "numba-cuda",
    "nvidia-dali-cuda130",
    "nvidia-nvimgcodec-cu13",
    "tensorrt-cu13",
    "tensorrt-lean-cu13",
)

_DOTS = {True: "VNNI", False: "no VNNI", None: "unknown"}


@common.command()
@common.as_json
def command(as_json: bool) -> None:
    """Show versions, backends and models.

    This includes the instruction sets of the processor, the precision that is the default for each
    model on this CPU, and for each missing backend the reason and how to get it.
    """
    found = _gather()
    click.echo(json.dumps(found, indent=2) if as_json else printable("\n".join(_lines(found))))


def _gather() -> dict[str, Any]:
    from sketchify_rt import backend, models

    return {
        "versions": {
            "sketchify-rt": __version__,
            "python": platform.python_version(),
            **{package: _version(package) for package in _PACKAGES},
        },
        "isa": _isa(),
        "threads": Options().thread_count,
        "backends": [dataclasses.asdict(info) for info in backend.available()],
        "models": [_model(name) for name in models.available_models()],
    }


def _version(package: str) -> str | None:
    """Reads the version of a package from its metadata, because its import may take seconds."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _isa() -> dict[str, Any]:
    """Returns the instruction sets of the kernels.

    Returns:
        in_use: the set in use, None without kernels; available: the sets that could be used; vnni:
        whether there are dot products of 8-bit integers, for the U-Net in INT8, None if unknown.
    """
    try:
        from sketchify_rt.kernels import native

        return {"in_use": native.isa(), "available": list(native.isas()), "vnni": native.vnni()}
    except (ImportError, BackendUnavailable) as error:
        return {"in_use": None, "available": [], "vnni": None, "error": str(error)}


def _model(name: str) -> dict[str, Any]:
    """Returns what is known of a model.

    Returns:
        The manifest; hint: whether the model takes one; cpu_precision: what "auto" is on this CPU,
        None if the model cannot be used here.
    """
    from sketchify_rt import backend, models

    try:
        model = models.load(name)
    except ModelError as error:
        return {"name": name, "error": str(error)}
    try:
        precision = backend.select(Options(device="cpu")).precision(model)
    except BackendUnavailable:  # `backends` tells why
        precision = None
    manifest = model.manifest
    return {**dataclasses.asdict(manifest), "hint": manifest.takes_hint, "cpu_precision": precision}


def _lines(found: dict[str, Any]) -> Iterator[str]:
    isa = found["isa"]
    yield "versions"
    for name, version in found["versions"].items():
        yield _row(name, version or "not installed")
    yield "processor"
    yield _row("threads", found["threads"])
    yield _row("instruction set", isa["in_use"] or f"none: {isa['error']}")
    yield _row("available", ", ".join(isa["available"]) or "none")
    yield _row("8-bit dot products", _DOTS[isa["vnni"]])
    yield "backends"
    for info in found["backends"]:
        yield _row(info["name"], ("" if info["available"] else "missing: ") + info["detail"])
        if info["remedy"]:
            yield _row("", f"to get it: {info['remedy']}")
    yield "models"
    for model in found["models"]:
        yield from _model_text(model)
    if not found["models"]:
        yield _row("none", "")


def _model_text(model: dict[str, Any]) -> Iterator[str]:
    if "error" in model:
        yield _row(model["name"], f"unusable: {model['error']}")
        return
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in model["metrics"].items())
    yield _row(model["name"], f"{model['gflop_per_megapixel']:.1f} GFLOP per megapixel")
    yield _row("", metrics or "not measured")
    yield _row("", f"precision auto on this CPU: {model['cpu_precision'] or 'unknown'}")
    yield _row("", f"takes a hint: {'yes' if model['hint'] else 'no'}")
    yield _row("", model["credit"])


def _row(name: str, value: object) -> str:
    return f"  {name:<24}{value}".rstrip()
