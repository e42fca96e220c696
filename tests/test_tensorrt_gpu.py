"""TensorRT itself, on a card: where its builder or its lean runtime is installed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import skip
from pictures import picture
from plain import plain

from sketchify_rt import BackendUnavailable, EngineError, Options, Sketchifier, models
from sketchify_rt.models import Model
from sketchify_rt.runtime.torch import TorchRuntime
from sketchify_rt.tensorrt.record import Recipe

pytestmark = pytest.mark.gpu

LITE = models.load("lite")
RECIPES = {
    "fp16": Recipe(tile=(256, 256, 256), batch=(1, 4, 8)),
    "fp32": Recipe("fp32", tile=(256, 256, 256), batch=(2, 2, 4)),
    "int8": Recipe("int8", tile=(256, 256, 256), batch=(1, 4, 4)),
    "dynamic": Recipe(tile=(8, 256, 512), batch=(1, 1, 2)),
    "compatible": Recipe(
        tile=(256, 256, 256), batch=(1, 1, 2), version_compatible=True, hardware_compatible=True
    ),
}


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SKETCHIFY_CACHE", str(tmp_path))
    try:
        from sketchify_rt.tensorrt import library  # noqa: F401
    except BackendUnavailable as error:
        skip(str(error))


@pytest.fixture
def builder() -> None:
    from sketchify_rt.tensorrt.library import trt

    if not hasattr(trt, "Builder"):
        skip("only TensorRT's lean runtime is installed")


@pytest.mark.parametrize(
    "plan", [b"", b"no plan", bytes(10_000), b"ptrt" + bytes(range(256)) * 40], ids=len
)
def test_what_is_no_plan_of_this_version_is_refused_in_words(plan: bytes) -> None:
    from sketchify_rt.tensorrt.session import TensorRTRuntime

    with pytest.raises(EngineError, match=r"^lite: .* refuses it: it is damaged, or was built"):
        TensorRTRuntime(plan, "lite", torch.device("cuda"))


@pytest.mark.usefixtures("builder")
@pytest.mark.parametrize("name", RECIPES)
def test_an_engine_is_built_verified_and_paints_what_torch_does(name: str) -> None:
    from sketchify_rt.tensorrt import engines

    recipe = RECIPES[name]
    engine = engines.make(LITE, recipe, torch.device("cuda", 0))
    assert engine.record.check.largest < 32
    pages = [picture(700, 530, seed) for seed in range(5)]
    precision = {"fp16": "half"}.get(recipe.precision, recipe.precision)
    by_engine = Sketchifier(device="cuda", engine=engine.path, precision=precision)
    by_torch = Sketchifier(device="cuda", runtime="torch")
    for sketch, expected in zip(by_engine.map(pages), by_torch.map(pages), strict=True):
        levels = abs(sketch.astype(int) - expected)
        assert levels.mean() < 1


@pytest.mark.usefixtures("builder")
@pytest.mark.parametrize("name", ["fp16", "fp32", "dynamic"])
@pytest.mark.parametrize("model", [LITE, None], ids=["hint", "no hint"])
def test_tones_are_those_of_torch(model: Model | None, name: str, tmp_path: Path) -> None:
    from sketchify_rt.tensorrt import engines

    device, recipe = torch.device("cuda", 0), RECIPES[name]
    model = model or plain(tmp_path / "plain.onnx")
    engine = engines.make(model, recipe, device)
    options = Options(model=str(model.path), engine=str(engine.path), precision="auto")
    runtime = engines.open_runtime(model, options, device, 1)
    exact = TorchRuntime(model, device, precision="fp32")
    binary = torch.from_numpy(picture(2 * 256, 256).reshape(2, 256, 256) // 128 * 255).to(device)
    hint = (torch.arange(2 * 32 * 32, device=device) * 37 % 256).reshape(2, 32, 32).byte()
    for shift in range(3):  # run, captured, replayed
        given = (binary, hint.roll(shift)) if runtime.takes_hint else (binary.roll(shift),)
        assert (runtime(*given).float() - exact(*given)).abs().max() < 2 / 255
    assert (runtime(binary).float() - exact(binary)).abs().max() < 2 / 255
    if runtime.takes_hint:
        assert (exact(binary, hint) - exact(binary)).abs().max() > 8 / 255


@pytest.mark.usefixtures("builder")
def test_batches_in_a_hurry_do_not_run_into_each_other() -> None:
    # Inputs are staged while the batch before is at work, from other streams.
    from sketchify_rt.tensorrt import engines

    device = torch.device("cuda", 0)
    engine = engines.make(LITE, RECIPES["fp16"], device)
    options = Options(engine=str(engine.path))
    runtime = engines.open_runtime(LITE, options, device, 1)
    batches = [
        torch.from_numpy(picture(4 * 256, 256, seed).reshape(4, 256, 256) // 128 * 255).to(device)
        for seed in range(4)
    ]
    alone = []
    for batch in batches:
        alone.append(runtime(batch))
        torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in range(3)]  # type: ignore[no-untyped-call]
    together: list[tuple[int, torch.Tensor]] = []
    for turn in range(300):
        with torch.cuda.stream(streams[turn % 3]):
            together.append((turn % 4, runtime(batches[turn % 4])))
    torch.cuda.synchronize()
    assert all(torch.equal(tones, alone[index]) for index, tones in together)


@pytest.mark.usefixtures("builder")
@pytest.mark.parametrize("change", [lambda data: data[:-100], lambda data: data[:5000] * 2])
def test_a_damaged_plan_is_refused_by_tensorrt_too(change: Callable[[bytes], bytes]) -> None:
    from sketchify_rt.tensorrt import engines
    from sketchify_rt.tensorrt.session import TensorRTRuntime

    plan = engines.make(LITE, RECIPES["fp16"], torch.device("cuda", 0)).plan
    with pytest.raises(EngineError, match="refuses it"):
        TensorRTRuntime(change(plan), "lite", torch.device("cuda"))
