"""Engines are built, verified, kept and found; with a TensorRT that computes on the processor."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fake_tensorrt
import pytest
import torch
from plain import plain

from sketchify_rt import EngineError, Options, models
from sketchify_rt.tensorrt import cache
from sketchify_rt.tensorrt.record import Check, Machine, Origin, Recipe, Record

LITE = models.load("lite")
CPU = torch.device("cpu")
HERE = Machine("11.4.0.106", "NVIDIA H200", "9.0")
SMALL = Recipe(tile=(104, 104, 104), batch=(1, 1, 2))


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("SKETCHIFY_CACHE", str(tmp_path / "cache"))
    return fake_tensorrt.install(monkeypatch)


def other(path: Path) -> None:
    """An engine of other weights."""
    record = Record(Origin("lite", "0" * 64), SMALL, HERE, Check(0, 0, 1, 1), "2026", 1)
    cache.write(path, record, b"a plan")


@pytest.fixture
def engines(trt: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    from sketchify_rt.tensorrt import engines

    monkeypatch.setattr(engines, "this_machine", lambda index=0: HERE)
    return engines


def files(folder: Path) -> dict[str, bytes]:
    """All files below and their contents, but for locks; folders end in a slash."""
    return {
        f"{path.relative_to(folder)}{'/' * path.is_dir()}": b""
        if path.is_dir()
        else path.read_bytes()
        for path in folder.rglob("*")
        if path.suffix != ".lock"
    }


def small(engines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is built by itself is small too."""
    monkeypatch.setattr(Recipe, "suited", lambda manifest, precision: SMALL)


def test_an_engine_is_built_verified_and_kept(engines: Any, trt: Any) -> None:
    told: list[str] = []
    engine = engines.make(LITE, SMALL, CPU, progress=lambda p: told.append(p.phase))
    record = engine.record
    assert engine.path.parent == cache.root()
    assert record.machine == HERE
    assert record.recipe == SMALL
    assert record.origin.sha256 == LITE.manifest.sha256
    assert 0.01 < record.check.largest < 2
    assert 0.001 < record.check.mean < 0.2
    assert record.check.crops == 3 * (1 + 2)
    assert record.check.megapixels_s > 0
    assert told[0] == "Build"
    assert told[-1] == "Verification"
    profile = trt.header(engine.plan)["profile"]
    assert (profile["binary"][2], profile["hint"][2]) == ([2, 1, 104, 104], [2, 1, 13, 13])
    assert cache.read(engine.path) == engine
    assert engines.open_runtime(LITE, Options(), CPU, 1).takes_hint


def test_an_engine_of_a_model_without_a_hint(engines: Any, trt: Any, tmp_path: Path) -> None:
    model = plain(tmp_path / "plain.onnx")
    engine = engines.make(model, SMALL, CPU)
    assert 0 < engine.record.check.largest < 1
    assert [*trt.header(engine.plan)["profile"]] == ["binary"]
    assert not engines.open_runtime(model, Options(model=str(model.path)), CPU, 1).takes_hint
    with pytest.raises(EngineError, match="built from the model plain, this is lite"):
        engines.open_runtime(LITE, Options(engine=str(engine.path)), CPU, 1)


def test_what_was_built_is_not_built_again(engines: Any) -> None:
    first = engines.make(LITE, SMALL, CPU)
    assert engines.make(LITE, SMALL, CPU).record == first.record
    again = engines.make(LITE, SMALL, CPU, force=True)
    assert again.path == first.path
    assert again.record.built > first.record.built
    other = engines.make(LITE, dataclasses.replace(SMALL, batch=(1, 2, 2)), CPU)
    assert other.path != first.path


def test_the_timing_cache_serves_the_next_build(engines: Any, trt: Any) -> None:
    assert trt.header(engines.make(LITE, SMALL, CPU).plan)["entries"] == 0
    assert trt.header(engines.make(LITE, SMALL, CPU, force=True).plan)["entries"] == 1


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("parse", r"node 3 '/down/foo' \(Foo\): UNSUPPORTED_NODE: no importer for Foo; node 5"),
        ("set_shape", "refuses the shapes"),
        ("add_profile", "refuses the shapes"),
        ("network", "cannot begin a build"),
        ("build", "cannot build the engine: Could not find any implementation"),
        ("deserialize", "the new engine of lite: .*refuses it"),
        ("set_input_shape", "wrong shape of a batch"),
        ("enqueue", "did not run it"),
        ("nan", "gives NaN or infinite tones"),
        ("off", r"differ too much from the float32 model's: got up to 2\d\d\.\d+ levels"),
    ],
)
def test_a_failure_leaves_what_was_there(
    engines: Any, trt: Any, tmp_path: Path, step: str, message: str
) -> None:
    trt.fail = {step}
    first, another = tmp_path / "first", tmp_path / "another"
    timing = tmp_path / "timing"
    other(another)
    timing.write_bytes(b"fake timing cache 11.4.0.106 7")
    before = files(tmp_path)
    for path in first, another:
        with pytest.raises(EngineError, match=message):
            engines.make(LITE, SMALL, CPU, path=path, timing_cache=timing)
    after = files(tmp_path)
    if step in ("deserialize", "context", "set_input_shape", "enqueue", "nan", "off"):
        assert after.pop("timing") > before.pop("timing")  # TensorRT did build, and measure
    assert after == before


def test_an_engine_takes_the_place_of_another(engines: Any, tmp_path: Path) -> None:
    path = tmp_path / "my.engine"
    other(path)
    engine = engines.make(LITE, SMALL, CPU, path=path)
    assert cache.read(path) == engine
    assert engine.record.origin.sha256 == LITE.manifest.sha256
    path.write_bytes(b"a file of another kind")
    with pytest.raises(EngineError, match=r"not an engine of sketchify-rt.* --output FILE --force"):
        engines.make(LITE, SMALL, CPU, path=path)
    assert path.read_bytes() == b"a file of another kind"
    assert engines.make(LITE, SMALL, CPU, path=path, force=True).path == path


def test_a_build_is_cancelled_and_leaves_nothing(engines: Any, trt: Any) -> None:
    cancelled = threading.Event()
    trt.on_step = cancelled.set
    with pytest.raises(CancelledError):
        engines.make(LITE, SMALL, CPU, cancelled=cancelled)
    assert files(cache.root()) == {}


def test_who_waits_for_anothers_build_can_be_cancelled(engines: Any) -> None:
    path = cache.root() / cache.file_name(Origin("lite", LITE.manifest.sha256), SMALL, HERE)
    cancelled = threading.Event()
    cancelled.set()
    with cache.locked(path), pytest.raises(CancelledError):
        engines.make(LITE, SMALL, CPU, cancelled=cancelled)


def test_of_two_that_want_the_same_one_builds(engines: Any, trt: Any) -> None:
    builds = []
    trt.on_step = lambda: builds.append(threading.get_ident())
    start = threading.Barrier(3)

    def make(_: int) -> Any:
        start.wait()
        return engines.make(LITE, SMALL, CPU)

    with ThreadPoolExecutor(3) as pool:
        records = [engine.record for engine in pool.map(make, range(3))]
    assert records[0] == records[1] == records[2]
    assert len(set(builds)) == 1


# Which engine runs.


def test_auto_takes_one_from_the_cache_or_tells_how_to_build_one(engines: Any) -> None:
    with pytest.raises(EngineError, match="no TensorRT engine of lite for this machine; `sketch"):
        engines.open_runtime(LITE, Options(), CPU, 1)
    engine = engines.make(LITE, SMALL, CPU)
    runtime = engines.open_runtime(LITE, Options(), CPU, 1)
    assert runtime.name == str(engine.path)
    assert runtime.most == (2, 104, 104)


def test_tensorrt_by_name_builds_what_is_missing(
    engines: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    small(engines, monkeypatch)
    with caplog.at_level(logging.WARNING):
        runtime = engines.open_runtime(LITE, Options(runtime="tensorrt"), CPU, 1)
    assert runtime.most == (2, 104, 104)
    assert "no TensorRT engine of lite for this machine" in caplog.text
    assert len(cache.engines(cache.root())) == 1


CHANGES = {
    "TensorRT": ({"tensorrt": "11.3.0.99"}, "built with TensorRT 11.4.0.106, this is 11.3.0.99"),
    "GPU": ({"gpu": "NVIDIA L4", "capability": "8.9"}, r"built for NVIDIA H200 .*, this is NVIDIA"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_one_for_another_machine_is_rebuilt_or_refused(
    engines: Any, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    engine = engines.make(LITE, SMALL, CPU)
    changes, reason = CHANGES[change]
    monkeypatch.setattr(
        engines, "this_machine", lambda index=0: dataclasses.replace(HERE, **changes)
    )
    with pytest.raises(EngineError, match=reason):
        engines.open_runtime(LITE, Options(), CPU, 1)
    with pytest.raises(EngineError, match=f"{engine.path}: {reason}.*--force"):
        engines.open_runtime(LITE, Options(engine=str(engine.path)), CPU, 1)
    small(engines, monkeypatch)
    runtime = engines.open_runtime(LITE, Options(runtime="tensorrt"), CPU, 1)
    assert runtime.name != str(engine.path)
    assert cache.read(engine.path) == engine


def test_one_of_other_weights_is_rebuilt_or_refused(engines: Any, tmp_path: Path) -> None:
    engine = engines.make(LITE, SMALL, CPU)
    path = tmp_path / "lite.onnx"
    data = LITE.read()
    changed = data[:-5000] + bytes([data[-5000] ^ 1]) + data[-4999:]  # within the weights
    path.write_bytes(changed)
    manifest = dataclasses.replace(LITE.manifest, sha256=hashlib.sha256(changed).hexdigest())
    other = models.Model(path, manifest)
    for options in Options(), Options(engine=str(engine.path)):
        with pytest.raises(EngineError, match="built from other weights, this is lite"):
            engines.open_runtime(other, options, CPU, 1)


def test_a_damaged_one_is_not_loaded(engines: Any) -> None:
    engine = engines.make(LITE, SMALL, CPU)
    path = engine.path
    path.write_bytes(path.read_bytes()[:-1])
    for options in Options(), Options(engine=str(engine.path)):
        with pytest.raises(EngineError, match=f"{path.name}: is damaged"):
            engines.open_runtime(LITE, options, CPU, 1)
    assert engines.make(LITE, SMALL, CPU).plan


def test_one_of_another_version_is_rebuilt_or_refused(
    engines: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    small(engines, monkeypatch)
    engine = engines.make(LITE, SMALL, CPU)
    data = engine.path.read_bytes()
    engine.path.write_bytes(data.replace(b"engine 2 ", b"engine 1 ", 1))
    reason = "is of another version of sketchify-rt: got format 1, expected 2"
    for options in Options(), Options(engine=str(engine.path)):
        with pytest.raises(EngineError, match=reason):
            engines.open_runtime(LITE, options, CPU, 1)
    engines.open_runtime(LITE, Options(runtime="tensorrt"), CPU, 1)
    assert reason in caplog.text
    assert cache.read(engine.path).plan


def test_one_that_tensorrt_refuses_is_rebuilt_where_tensorrt_is_asked_for(
    engines: Any, trt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(engines, monkeypatch)
    engine = engines.make(LITE, SMALL, CPU)
    deserialize = trt.Runtime.deserialize_cuda_engine
    refusals = [True]

    def once(runtime: Any, plan: bytes) -> Any:
        return None if refusals and refusals.pop() else deserialize(runtime, plan)

    monkeypatch.setattr(trt.Runtime, "deserialize_cuda_engine", once)
    engines.open_runtime(LITE, Options(runtime="tensorrt"), CPU, 1)
    assert cache.read(engine.path).record.built > engine.record.built


def test_an_engine_keeps_its_precision(engines: Any) -> None:
    engine = engines.make(LITE, dataclasses.replace(SMALL, precision="fp32"), CPU)
    assert engine.record.check.largest < 0.01
    path = str(engine.path)
    assert engines.open_runtime(LITE, Options(engine=path), CPU, 1).dtype == torch.float32
    assert engines.open_runtime(LITE, Options(precision="fp32"), CPU, 1).dtype == torch.float32
    with pytest.raises(EngineError, match="built for fp32, not int8"):
        engines.open_runtime(LITE, Options(engine=path, precision="int8"), CPU, 1)
    with pytest.raises(EngineError, match=r"built for fp32, not fp16; .* --output .* builds such"):
        engines.open_runtime(LITE, Options(engine=path, precision="half"), CPU, 1)
    for precision in ("auto", "half"):
        options = Options(precision=precision)
        with pytest.raises(EngineError, match=r"no TensorRT engine of lite.*build-engine lite` "):
            engines.open_runtime(LITE, options, CPU, 1)
    half = engines.make(LITE, SMALL, CPU)
    for options in Options(precision="half"), Options(engine=str(half.path), precision="half"):
        assert engines.open_runtime(LITE, options, CPU, 1).dtype == torch.float16


def test_int8_is_made_of_the_quantized_form(engines: Any) -> None:
    engine = engines.make(LITE, dataclasses.replace(SMALL, precision="int8"), CPU)
    assert engine.record.origin.sha256 == LITE.manifest.int8_sha256
    assert 0.1 < engine.record.check.mean < 2
