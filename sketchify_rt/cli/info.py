"""`sketchify-rt info`: shows versions, backends and models, and how to get what is missing."""

from __future__ import annotations

import dataclasses
import json
import platform
from importlib import metadata
from typing import Any

import click

from sketchify_rt import __version__
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


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def command(as_json: bool) -> None:
    """Show versions, backends and models.

    Also shows the instruction sets of the processor, the default precision of each model on it, and
    for a missing backend the reason and how to get it.
    """
    found = _gather()
    click.echo(json.dumps(found, indent=2) if as_json else _text(found))


def _gather() -> dict[str, Any]:
    from sketchify_rt import backend, models

    return {
        "versions": {
            "sketchify-rt": __version__,
            "python": platform.python_version(),
            **_versions(),
        },
        "isa": _isa(),
        "threads": Options().thread_count,
        "backends": [dataclasses.asdict(info) for info in backend.available()],
        "models": [_model(name) for name in models.available_models()],
    }


def _versions() -> dict[str, str | None]:
    """Reads the metadata of packages: importing them takes seconds."""
    found: dict[str, str | None] = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def _isa() -> dict[str, Any]:
    """in_use: instruction set of the kernels, None without them; available: what could be used.

    vnni: whether there are dot products of 8-bit integers, for the U-Net in INT8.
    """
    try:
        from sketchify_rt.kernels import native

        return {"in_use": native.isa(), "available": list(native.isas()), "vnni": native.vnni()}
    except (ImportError, BackendUnavailable) as error:
        return {"in_use": None, "available": [], "vnni": None, "error": str(error)}


def _model(name: str) -> dict[str, Any]:
    """The manifest.

    hint: whether the model takes one. cpu_precision: what "auto" is on this CPU, None where that
    cannot be used.
    """
    from sketchify_rt import backend, models

    try:
        model = models.load(name)
    except ModelError as error:
        return {"name": name, "error": str(error)}
    try:
        precision = backend.select(Options(device="cpu")).precision(model)
    except BackendUnavailable:  # which is told above
        precision = None
    manifest = model.manifest
    return {**dataclasses.asdict(manifest), "hint": manifest.takes_hint, "cpu_precision": precision}


def _text(found: dict[str, Any]) -> str:
    isa = found["isa"]
    lines = ["versions"]
    lines += [f"  {name:<24}{text or 'not installed'}" for name, text in found["versions"].items()]
    lines += ["processor", f"  {'threads':<24}{found['threads']}"]
    in_use = isa["in_use"] or f"none: {isa['error']}"
    lines += [f"  {'instruction set':<24}{in_use}"]
    lines += [f"  {'available':<24}{', '.join(isa['available']) or 'none'}"]
    lines += [f"  {'8-bit dot products':<24}{_DOTS[isa['vnni']]}", "backends"]
    for info in found["backends"]:
        state = "" if info["available"] else "missing: "
        lines.append(f"  {info['name']:<24}{state}{info['detail']}")
        if info["remedy"]:
            lines.append(f"  {'':<24}to get it: {info['remedy']}")
    lines.append("models")
    for model in found["models"]:
        lines += _model_text(model)
    if not found["models"]:
        lines.append("  none")
    return "\n".join(lines)


def _model_text(model: dict[str, Any]) -> list[str]:
    if "error" in model:
        return [f"  {model['name']:<24}unusable: {model['error']}"]
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in model["metrics"].items())
    return [
        f"  {model['name']:<24}{model['gflop_per_megapixel']:.1f} GFLOP per megapixel",
        f"  {'':<24}{metrics or 'not measured'}",
        f"  {'':<24}precision auto on this CPU: {model['cpu_precision'] or 'unknown'}",
        f"  {'':<24}takes a hint: {'yes' if model['hint'] else 'no'}",
        f"  {'':<24}{model['credit']}",
    ]
