"""Engines are built, verified, kept and found; with a TensorRT that computes on the processor."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import shutil
import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fake_tensorrt
import pytest
import torch
from plain import plain

from sketchify_rt import EngineError, Options, OptionsError, models
from sketchify_rt.runtime import engine_cache, engine_record
from sketchify_rt.runtime.engine_record import Machine, Recipe

LITE = models.load("lite")
CPU = torch.device("cpu")
HERE = Machine("11.4.0.106", "NVIDIA H200", "9.0")
SMALL = Recipe(tile=(104, 104, 104), batch=(1, 1, 2))


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("SKETCHIFY_CACHE", str(tmp_path / "cache"))
    return fake_tensorrt.install(monkeypatch)


@pytest.fixture
def engines(trt: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    from sketchify_rt.runtime import engines

    monkeypatch.setattr(engines, "machine", lambda index=0: HERE)
    return engines


def files(folder: Path) -> dict[str, bytes]:
    """All files below and their contents, but for locks; folders end in a slash."""
    return {
        f"{path.relative_to(folder)}{'/' * path.is_dir()}": b""
        if path.is_dir()
        else path.read_bytes()
        for path in folder.rglob("*")
        if path.name != ".lock"
    }


def small(engines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is built by itself is small too."""
    monkeypatch.setattr(engines, "recipe_of", lambda model, precision: SMALL)


def test_an_engine_is_built_verified_and_kept(engines: Any, trt: Any) -> None:
    told: list[str] = []
    engine = engines.make(LITE, SMALL, CPU, progress=lambda p: told.append(p.phase))
    record = engine.record
    assert engine.folder.parent == engine_cache.root()
    assert record.machine == HERE
    assert record.recipe == SMALL
    assert record.origin.sha256 == LITE.manifest.sha256
    assert 0.01 < record.check.largest < 2
    assert 0.001 < record.check.mean < 0.2
    assert record.check.crops == 3 * (1 + 2)
    assert record.check.megapixels_s > 0
    assert told[0] == "Build"
    assert told[-1] == "Verification"
    profile = trt.header(engine.plan())["profile"]
    assert (profile["binary"][2], profile["hint"][2]) == ([2, 1, 104, 104], [2, 1, 13, 13])
    assert engine_cache.read(engine.folder) == engine
    assert engines.open_runtime(LITE, Options(), CPU, 1).takes_hint


def test_an_engine_of_a_model_without_a_hint(engines: Any, trt: Any, tmp_path: Path) -> None:
    model = plain(tmp_path / "plain.onnx")
    engine = engines.make(model, SMALL, CPU)
    assert 0 < engine.record.check.largest < 1
    assert [*trt.header(engine.plan())["profile"]] == ["binary"]
    assert not engines.open_runtime(model, Options(model=str(model.path)), CPU, 1).takes_hint
    with pytest.raises(EngineError, match="built of the model plain, not lite"):
        engines.open_runtime(LITE, Options(engine=str(engine.folder)), CPU, 1)


def test_what_was_built_is_not_built_again(engines: Any) -> None:
    first = engines.make(LITE, SMALL, CPU)
    assert engines.make(LITE, SMALL, CPU).record == first.record
    again = engines.make(LITE, SMALL, CPU, force=True)
    assert again.folder == first.folder
    assert again.record.built > first.record.built
    other = engines.make(LITE, dataclasses.replace(SMALL, batch=(1, 2, 2)), CPU)
    assert other.folder != first.folder


def test_the_timing_cache_serves_the_next_build(engines: Any, trt: Any) -> None:
    assert trt.header(engines.make(LITE, SMALL, CPU).plan())["entries"] == 0
    assert trt.header(engines.make(LITE, SMALL, CPU, force=True).plan())["entries"] == 1


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("parse", r"node 3 '/down/foo' \(Foo\): UNSUPPORTED_NODE: no importer for Foo; node 5"),
        ("set_shape", "refuses the shapes"),
        ("add_profile", "refuses the shapes"),
        ("network", "cannot begin a build"),
        ("timing_cache", "gives no timing cache"),
        ("build", "cannot build the engine: Could not find any implementation"),
        ("deserialize", "the new engine of lite: .*refuses it"),
        ("set_input_shape", "is not one it was built for"),
        ("enqueue", "did not run it"),
        ("nan", "gives NaN or infinite tones"),
        ("off", r"tones are up to 2\d\d\.\d+ levels of 255 from the float32 model's"),
    ],
)
def test_a_failure_leaves_what_was_there(
    engines: Any, trt: Any, tmp_path: Path, step: str, message: str
) -> None:
    trt.fail = {step}
    first, another = tmp_path / "first", tmp_path / "another"
    timing = tmp_path / "timing"
    origin = engine_record.Origin("lite", "0" * 64)
    check = engine_record.Check(0.0, 0.0, 1.0, 1)
    engine_cache.store(another, b"a plan", origin, SMALL, HERE, 1.0, check)
    timing.write_bytes(b"fake timing cache 11.4.0.106 7")
    before = files(tmp_path)
    for folder in first, another:
        with pytest.raises(EngineError, match=message):
            engines.make(LITE, SMALL, CPU, folder=folder, timing_cache=timing)
    after = files(tmp_path)
    if step in ("deserialize", "context", "set_input_shape", "enqueue", "nan", "off"):
        assert after.pop("timing") > before.pop("timing")  # TensorRT did build, and measure
    assert after == before


def test_an_engine_takes_the_place_of_another(engines: Any, tmp_path: Path) -> None:
    origin = engine_record.Origin("lite", "0" * 64)
    check = engine_record.Check(0.0, 0.0, 1.0, 1)
    engine_cache.store(tmp_path, b"a plan", origin, SMALL, HERE, 1.0, check)
    engine = engines.make(LITE, SMALL, CPU, folder=tmp_path)
    assert engine_cache.read(tmp_path) == engine
    assert set(files(tmp_path)) == {"engine.json", engine.record.plan} | {
        name for name in files(tmp_path) if name.startswith("cache")
    }


def test_a_build_is_cancelled_and_leaves_nothing(engines: Any, trt: Any) -> None:
    cancelled = threading.Event()
    trt.on_step = cancelled.set
    with pytest.raises(CancelledError):
        engines.make(LITE, SMALL, CPU, cancelled=cancelled)
    assert files(engine_cache.root()) == {}


def test_who_waits_for_anothers_build_can_be_cancelled(engines: Any) -> None:
    origin = engine_record.Origin("lite", LITE.manifest.sha256)
    folder = engine_cache.root() / engine_cache.folder_name(origin, SMALL, HERE)
    cancelled = threading.Event()
    cancelled.set()
    with engine_cache.locked(folder), pytest.raises(CancelledError):
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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tile": (96, 96, 96)}, "tile is 96; lite needs a multiple of 8 from 104"),
        ({"tile": (108, 108, 108)}, "tile is 108; lite needs a multiple of 8 from 104"),
        ({"tile": (16, 64, 128)}, "the least tile is 16; of a dynamic engine it is 8"),
    ],
)
def test_tiles_that_the_model_cannot_take_are_refused(
    engines: Any, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionsError, match=message):
        engines.make(LITE, Recipe(**changes), CPU)


# Which engine runs.


def test_auto_takes_one_from_the_cache_or_tells_how_to_build_one(engines: Any) -> None:
    with pytest.raises(EngineError, match="no TensorRT engine of lite for this machine; `sketch"):
        engines.open_runtime(LITE, Options(), CPU, 1)
    engine = engines.make(LITE, SMALL, CPU)
    runtime = engines.open_runtime(LITE, Options(), CPU, 1)
    assert runtime.name == str(engine.folder)
    assert runtime.most == (2, 104, 104)


def test_tensorrt_by_name_builds_what_is_missing(
    engines: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    small(engines, monkeypatch)
    with caplog.at_level(logging.WARNING):
        runtime = engines.open_runtime(LITE, Options(runtime="tensorrt"), CPU, 1)
    assert runtime.most == (2, 104, 104)
    assert "no TensorRT engine of lite for this machine" in caplog.text
    assert len(engine_cache.engines(engine_cache.root())) == 1


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
    monkeypatch.setattr(engines, "machine", lambda index=0: dataclasses.replace(HERE, **changes))
    with pytest.raises(EngineError, match=reason):
        engines.open_runtime(LITE, Options(), CPU, 1)
    with pytest.raises(EngineError, match=f"{engine.folder}: {reason}.*--force"):
        engines.open_runtime(LITE, Options(engine=str(engine.folder)), CPU, 1)
    small(engines, monkeypatch)
    runtime = engines.open_runtime(LITE, Options(runtime="tensorrt"), CPU, 1)
    assert runtime.name != str(engine.folder)
    assert engine_cache.read(engine.folder) == engine


def test_one_of_other_weights_is_rebuilt_or_refused(engines: Any, tmp_path: Path) -> None:
    engine = engines.make(LITE, SMALL, CPU)
    path = tmp_path / "lite.onnx"
    data = LITE.read()
    changed = data[:-5000] + bytes([data[-5000] ^ 1]) + data[-4999:]  # within the weights
    path.write_bytes(changed)
    manifest = dataclasses.replace(LITE.manifest, sha256=hashlib.sha256(changed).hexdigest())
    other = models.Model(path, manifest)
    for options in Options(), Options(engine=str(engine.folder)):
        with pytest.raises(EngineError, match="built of other weights of lite"):
            engines.open_runtime(other, options, CPU, 1)


def test_a_damaged_one_is_not_loaded(engines: Any) -> None:
    engine = engines.make(LITE, SMALL, CPU)
    plan = engine.folder / engine.record.plan
    plan.write_bytes(plan.read_bytes()[:-1])
    for options in Options(), Options(engine=str(engine.folder)):
        with pytest.raises(EngineError, match=f"{plan.name}: is damaged"):
            engines.open_runtime(LITE, options, CPU, 1)
    assert engines.make(LITE, SMALL, CPU).plan()


def test_one_of_another_version_is_rebuilt_or_refused(
    engines: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    small(engines, monkeypatch)
    engine = engines.make(LITE, SMALL, CPU)
    path = engine.folder / "engine.json"
    record = json.loads(path.read_text())
    del record["format"]
    path.write_text(json.dumps(record))
    reason = "is of another version of sketchify-rt: got no export format, expected 1"
    for options in Options(), Options(engine=str(engine.folder)):
        with pytest.raises(EngineError, match=reason):
            engines.open_runtime(LITE, options, CPU, 1)
    engines.open_runtime(LITE, Options(runtime="tensorrt"), CPU, 1)
    assert reason in caplog.text
    assert engine_cache.read(engine.folder).plan()


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
    assert engine_cache.read(engine.folder).record.built > engine.record.built


def test_an_engine_keeps_its_precision(engines: Any) -> None:
    engine = engines.make(LITE, dataclasses.replace(SMALL, precision="fp32"), CPU)
    assert engine.record.check.largest < 0.01
    folder = str(engine.folder)
    assert engines.open_runtime(LITE, Options(engine=folder), CPU, 1).dtype == torch.float32
    assert engines.open_runtime(LITE, Options(precision="fp32"), CPU, 1).dtype == torch.float32
    with pytest.raises(EngineError, match="built for fp32, not int8"):
        engines.open_runtime(LITE, Options(engine=folder, precision="int8"), CPU, 1)
    with pytest.raises(EngineError, match=r"built for fp32, not fp16; .* --output .* builds such"):
        engines.open_runtime(LITE, Options(engine=folder, precision="half"), CPU, 1)
    for precision in ("auto", "half"):
        options = Options(precision=precision)
        with pytest.raises(EngineError, match=r"no TensorRT engine of lite.*build-engine lite` "):
            engines.open_runtime(LITE, options, CPU, 1)
    half = engines.make(LITE, SMALL, CPU)
    for options in Options(precision="half"), Options(engine=str(half.folder), precision="half"):
        assert engines.open_runtime(LITE, options, CPU, 1).dtype == torch.float16


def test_int8_is_made_of_the_quantized_form(engines: Any) -> None:
    engine = engines.make(LITE, dataclasses.replace(SMALL, precision="int8"), CPU)
    assert engine.record.origin.sha256 == LITE.manifest.int8_sha256
    assert 0.1 < engine.record.check.mean < 2


def test_an_engine_can_be_copied(engines: Any, tmp_path: Path) -> None:
    engine = engines.make(LITE, SMALL, CPU)
    copy = shutil.copytree(engine.folder, tmp_path / "image" / "lite")
    record = json.loads((copy / "engine.json").read_text())
    assert record["machine"]["gpu"] == "NVIDIA H200"
    assert engines.open_runtime(LITE, Options(engine=str(copy)), CPU, 1).name == str(copy)
    with pytest.raises(EngineError, match="no engine is there"):
        engines.open_runtime(LITE, Options(engine=str(tmp_path)), CPU, 1)
