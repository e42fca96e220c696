"""`sketchify-rt build-engine`, with a TensorRT that computes on the processor."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from pathlib import Path
from typing import Any

import click.testing
import fake_tensorrt
import pytest
import torch

from sketchify_rt import BackendUnavailable, backend
from sketchify_rt.cli.verbs import main
from sketchify_rt.tensorrt import cache
from sketchify_rt.tensorrt.record import Machine, Recipe

HERE = Machine("11.4.0.106", "NVIDIA H200", "9.0")
SMALL = ("--tile", "104", "--batch", "1", "1", "2")


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("SKETCHIFY_CACHE", str(tmp_path / "cache"))
    fake = fake_tensorrt.install(monkeypatch)
    from sketchify_rt.tensorrt import engines

    monkeypatch.setattr(engines, "this_machine", lambda index=0: HERE)
    monkeypatch.setattr(backend, "cuda_device", lambda name: torch.device("cpu"))
    return fake


def build(*arguments: str) -> click.testing.Result:
    return click.testing.CliRunner().invoke(main, ["build-engine", *arguments])


def only() -> cache.Engine:
    (engine,) = cache.engines(cache.root())
    assert isinstance(engine, cache.Engine)
    return engine


@pytest.mark.usefixtures("trt")
def test_it_builds_verifies_and_tells() -> None:
    result = build(*SMALL)
    assert result.exit_code == 0, result.output
    engine = only()
    check = engine.record.check
    assert result.stdout.startswith(f"{engine.path}: ")
    assert f"at most {check.largest:.2f} levels of 255" in result.stdout
    assert f"{check.mean:.3f} on average; {check.megapixels_s:.0f} megapixels/s" in result.stdout
    again = build(*SMALL, "--json")
    assert json.loads(again.stdout)["built"] == engine.record.built
    forced = json.loads(build(*SMALL, "--json", "--force").stdout)
    assert forced["built"] > engine.record.built
    assert forced["path"] == str(engine.path)


def test_the_options_reach_the_build(trt: Any, tmp_path: Path) -> None:
    path, timing = tmp_path / "shipped" / "lite.engine", tmp_path / "timing"
    result = build(
        *("lite", *SMALL, "--precision", "fp32", "--opt-level", "5", "--workspace", "64"),
        *("--version-compatible", "--hardware-compatible"),
        *("--timing-cache", str(timing), "--output", str(path)),
    )
    assert result.exit_code == 0, result.output
    engine = cache.read(path)
    assert engine.record.recipe == Recipe(
        "fp32", (104, 104, 104), (1, 1, 2), 5, 64, version_compatible=True, hardware_compatible=True
    )
    header = trt.header(engine.plan)
    assert header["workspace"] == 64 * 2**20
    assert header["level"] == 5
    assert header["hardware"] == "AMPERE_PLUS"
    assert timing.exists()
    assert not cache.engines(cache.root())


@pytest.mark.usefixtures("trt")
def test_an_engine_that_is_off_is_refused_and_the_bounds_can_be_set() -> None:
    refused = build(*SMALL, "--bounds", "0.01", "1")
    assert refused.exit_code == 1
    assert "expected at most 0.01 and 1 for fp16" in refused.stderr
    assert not cache.engines(cache.root())
    mean = build(*SMALL, "--bounds", "9", "0.001")
    assert mean.exit_code == 1
    assert "expected at most 9 and 0.001 for fp16" in mean.stderr
    assert build(*SMALL, "--bounds", "1", "1").exit_code == 0


@pytest.mark.usefixtures("trt")
def test_a_dynamic_engine_takes_all_sides_from_the_stride() -> None:
    assert build("--dynamic", "--tile", "160").exit_code == 0
    assert only().record.recipe.tile == (8, 104, 160)
    assert only().record.recipe.batch == (1, 1, 4)


@pytest.mark.usefixtures("trt")
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--tile", "100"), 2, "tile must be a multiple of 8 from 104 on for lite, got 100"),
        (
            ("--batch", "4", "2", "8"),
            2,
            "batch sizes must rise from the smallest",
        ),
        (("--batch", "0", "1", "1"), 2, "0 is not in the range"),
        (("huge",), 1, "model must be one of lite, or the path of an .onnx file, got 'huge'"),
        (("--opt-level", "6"), 2, "6 is not in the range"),
        (("--device", "cpu"), 2, 'must be "cuda" or "cuda:N", got \'cpu\''),
        (("--device", "cuda:x"), 2, "got 'cuda:x'"),
    ],
)
def test_wrong_usage_is_told(arguments: tuple[str, ...], code: int, message: str) -> None:
    result = build(*arguments)
    assert result.exit_code == code
    assert message in result.stderr
    assert not cache.root().exists()


def test_every_node_that_cannot_be_parsed_is_told(trt: Any) -> None:
    trt.fail = {"parse"}
    result = build(*SMALL)
    assert result.exit_code == 1
    assert "node 3 '/down/foo' (Foo): UNSUPPORTED_NODE: no importer for Foo" in result.stderr
    assert "node 5 '/up/mul' (Mul): UNSUPPORTED_NODE_DATATYPE: HALF times FLOAT" in result.stderr
    assert "Traceback" not in result.output


def test_ctrl_c_ends_the_build_and_changes_nothing(
    trt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sketchify_rt.cli import build_engine

    build(*SMALL)
    before = only()
    cancelled = threading.Event()
    monkeypatch.setattr(build_engine, "Event", lambda: cancelled)

    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        assert cancelled.wait(20)

    trt.on_step = interrupt
    result = build(*SMALL, "--force")
    assert result.exit_code == 130
    assert result.stderr.endswith("interrupted\n")
    assert only() == before


def test_the_clock_goes_on(trt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from sketchify_rt.cli import build_engine

    ticks = threading.Event()
    monkeypatch.setattr(build_engine, "_TICK", 0.001)
    waited = build_engine.wait

    def wait(*arguments: Any) -> Any:
        done = waited(*arguments)
        ticks.set()
        return done

    monkeypatch.setattr(build_engine, "wait", wait)
    trt.on_step = lambda: ticks.wait(20)
    result = build(*SMALL)
    assert result.exit_code == 0
    assert re.match(r"building for 0 s: (begins|\w+ \d/\d)\n", result.stderr), result.stderr


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> torch.device:
        raise BackendUnavailable("there is no such GPU, 0 found")

    monkeypatch.setattr(backend, "cuda_device", none)
    result = build("--device", "cuda:3")
    assert result.exit_code == 1
    assert "there is no such GPU" in result.stderr
