"""The kernels of the GPU, which run in an interpreter or simulator where there is none."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from conftest import skip
from numpy.typing import NDArray
from pictures import noise
from torch import Tensor

from sketchify_rt.kernels import numba_cuda, reference, triton

pytestmark = pytest.mark.slow

Gray = NDArray[np.uint8]

# Strips have 64 or 62 rows and steps of 64 columns, quick ones where rows are aligned and 112 are
# left.
SIZES = [(1, 1), (1, 7), (5, 3), (9, 70), (70, 2), (65, 67), (63, 130), (67, 336), (2, 193)]
SIMULATED = [(1, 1), (1, 7), (5, 3), (2, 33), (33, 20)]  # blocks of 32
STRENGTHS = [0, 1, 1.6, 4]
SPECIAL = [np.nan, -np.nan, np.inf, -np.inf, -0.0, 1e-45, 1e38, -1e38, 1.0000001]


@pytest.fixture(params=[triton, numba_cuda], ids=lambda module: module.__name__.rpartition(".")[2])
def kernels(
    request: pytest.FixtureRequest, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> ModuleType:
    module: ModuleType = request.param
    if module is triton:
        request.getfixturevalue("interpreter")
    elif device.type == "cuda":
        skip_if_numba_cannot_compile()
    if device.type == "cpu":  # a thread of numba's simulator is one of the operating system
        monkeypatch.setattr(numba_cuda, "_THREADS", (32, 1))
        monkeypatch.setattr(numba_cuda, "_FLAT_THREADS", 32)
    return module


def skip_if_numba_cannot_compile() -> None:
    if not hasattr(np, "row_stack"):  # which numba-cuda 0.30 wants
        skip(f"numba-cuda cannot compile beside NumPy {np.__version__}: numpy.row_stack is gone")


def edges(height: int, width: int) -> Gray:
    """Straight edges, and single pixels on black: the blur is 0 at some of their neighbours."""
    gray = np.zeros((height, width), np.uint8)
    gray[height // 2 :, : width // 2] = 255
    gray[5 % height, width - 1 - 5 % width] = 255
    gray[0, 0] = 9
    return gray


def on(device: torch.device, arrays: Sequence[NDArray[Any]]) -> list[Tensor]:
    return [torch.from_numpy(array).to(device) for array in arrays]


def assert_equal(
    results: Sequence[Tensor], arrays: Sequence[NDArray[Any]], expected: Callable[[Any], Gray]
) -> None:
    for result, array in zip(results, arrays, strict=True):
        assert result.dtype == torch.uint8
        message = f"{array.shape[0]} x {array.shape[1]}"
        np.testing.assert_array_equal(result.cpu().numpy(), expected(array), message)


def test_ragged_batches_are_the_reference(kernels: ModuleType, device: torch.device) -> None:
    sizes = SIMULATED if kernels is numba_cuda and device.type == "cpu" else SIZES
    grays = [noise(*size) for size in sizes]
    grays += [edges(*size) for size in sizes[-3:-1]]
    grays += [np.full(sizes[3], level, np.uint8) for level in (0, 1, 255)]
    images = on(device, grays)
    assert_equal(kernels.binarize(images), grays, reference.binarize)
    assert_equal(kernels.dodge(images), grays, reference.dodge)


@pytest.mark.usefixtures("interpreter")
def test_strips_of_many_steps_are_the_reference(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triton, "_ENOUGH", 1)
    grays = [noise(5, 1120), noise(3, 333), noise(66, 240)]
    images = on(device, grays)
    assert_equal(triton.binarize(images), grays, reference.binarize)
    assert_equal(triton.dodge(images, 1.6), grays, lambda gray: reference.dodge(gray, 1.6))


@pytest.mark.parametrize("strength", STRENGTHS)
def test_strength_is_that_of_the_reference(
    kernels: ModuleType, device: torch.device, strength: float
) -> None:
    grays = [noise(20, 31), noise(30, 11, seed=1)]
    result = kernels.dodge(on(device, grays), strength)
    assert_equal(result, grays, lambda gray: reference.dodge(gray, strength))


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_compose_of_all_levels_and_specials(
    kernels: ModuleType, device: torch.device, strength: float, dtype: Any
) -> None:
    halves = np.arange(511, dtype=np.float32) / np.float32(2 * 255)  # ties included
    nearby = np.concatenate([halves, np.nextafter(halves, 2), np.nextafter(halves, -1)])
    with np.errstate(over="ignore"):
        values = np.concatenate([nearby, SPECIAL]).astype(dtype)
    tones = [values[None], np.resize(values, (7, 9)), np.resize(values[::-1], (67, 3))]
    assert_equal(
        kernels.compose(on(device, tones), strength),
        tones,
        lambda array: reference.compose(array.astype(np.float32), strength),
    )


def test_an_equal_batch_may_be_one_tensor(kernels: ModuleType, device: torch.device) -> None:
    grays = np.stack([noise(9, 21, seed) for seed in range(4)])
    results = kernels.binarize(torch.from_numpy(grays).to(device))
    assert_equal(results, list(grays), reference.binarize)
    packed = {result.untyped_storage().data_ptr() for result in results}
    assert len(packed) == 1


def test_views_are_read_and_written_in_place(kernels: ModuleType, device: torch.device) -> None:
    gray, tones = noise(40, 70), (noise(40, 70) / 250).astype(np.float32)
    views = [
        (slice(3, 35), slice(5, 68)),  # a crop
        (slice(None, None, 2), slice(1, None)),  # every other row
        (slice(None), slice(7, 8)),  # a column
        (slice(None, None, 3), slice(None, None, 3)),  # columns apart
    ]
    for name, source in ("binarize", gray), ("dodge", gray), ("compose", tones):
        whole = torch.from_numpy(source).to(device)
        sheet = torch.full((200, 300), 77, dtype=torch.uint8, device=device)
        images = [whole[view] for view in views]
        out = [
            sheet[1 + 95 * y : 1 + 95 * y + image.shape[0], 3 + 120 * x :][:, : image.shape[1]]
            for (y, x), image in zip(itertools.product(range(2), range(2)), images, strict=True)
        ]
        results = getattr(kernels, name)(images, out=out)
        assert all(result is page for result, page in zip(results, out, strict=True))
        assert_equal(results, [source[view] for view in views], getattr(reference, name))
        for page in out:
            page.fill_(77)
        assert bool((sheet == 77).all()), f"{name} wrote beside its views"


def test_threads_make_no_difference(kernels: ModuleType, device: torch.device) -> None:
    grays = [noise(20, 30, seed) for seed in range(4)]
    images = on(device, grays)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda image: kernels.dodge([image])[0], images))
    assert_equal(results, grays, reference.dodge)


def test_no_quotient_is_near_its_rounding() -> None:
    """The arithmetic of `triton_jit._divide`, with a root less accurate than the hardware's."""
    gray, blur = np.meshgrid(np.arange(256.0), np.arange(1.0, 256.0))
    expected = np.minimum((512 * gray + blur) // (2 * blur), 255)
    for error in -(2.0**-21), 0, 2.0**-21:
        root = np.float32(blur**-0.5 * (1 + error)).astype(np.float64)
        lifted = np.float32(gray * root + 2.0**-14).astype(np.float64)
        quotient = np.float32(lifted * root + 1.5 * 2**15).astype(np.float64)
        levels = np.minimum((quotient - 1.5 * 2**15) * 256, 255)
        np.testing.assert_array_equal(levels, expected)


COMPILE_TRITON = """
import subprocess, sys
from pathlib import Path
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from sketchify_rt.kernels import triton as kernels

cubin = Path(sys.argv[1]) / "cubin"
disassembler = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
types = dict(table="*i64", steps="i32", band_down="*fp16", band_across="*fp16", factor="i32")
for architecture in 80, 90, 100:
    for kernel, constants, options in (
        (kernels.jit.binarize, {}, kernels._BINARIZE_OPTIONS),
        (kernels.jit.dodge, {"scale": True}, kernels._DODGE_OPTIONS),
    ):
        signature = {name: types.get(name, "constexpr") for name in kernel.arg_names}
        compiled = triton.compile(
            ASTSource(fn=kernel, signature=signature, constexprs=constants),
            target=GPUTarget("cuda", architecture, 32),
            options=options,
        )
        cubin.write_bytes(compiled.asm["cubin"])
        print(subprocess.run([disassembler, "-sass", cubin], capture_output=True, text=True).stdout)
"""


def test_triton_compiles_to_matrix_products(tmp_path: Path) -> None:
    printed = run_python(COMPILE_TRITON, str(tmp_path), TRITON_CACHE_DIR=str(tmp_path))
    _, *kernels = printed.split("Function : ")
    products = ["HMMA.16816.F32", "HGMMA", "UTCHMMA"]  # of sm_80, sm_90 and sm_100
    for instructions, product in zip(kernels, [p for p in products for _ in range(2)], strict=True):
        assert product in instructions
        assert "LDG.E.128" in instructions  # rows at multiples of 16 bytes
        assert "STG.E.128" in instructions
        if product == "HGMMA":
            loop = loop_around(instructions, "HGMMA.64x64x16")  # of the quick steps alone
            assert len([line for line in loop if re.search("LDL|STL", line)]) < 10, "spilled"


def loop_around(instructions: str, name: str) -> list[str]:
    lines = re.findall(r"/\*([0-9a-f]{4,})\*/\s+(.*?);", instructions)
    at = next(int(address, 16) for address, line in lines if name in line)
    for address, line in lines:
        end, branch = int(address, 16), re.search(r"BRA.* 0x([0-9a-f]+)", line)
        if branch and int(branch[1], 16) <= at <= end:
            return [line for a, line in lines if int(branch[1], 16) <= int(a, 16) <= end]
    raise AssertionError(f"{name} is in no loop")


COMPILE_NUMBA = """
from types import SimpleNamespace
from numba import cuda, types
from numba.cuda import dispatcher
from sketchify_rt.kernels import numba_cuda as kernels

# numba asks the device there is for what it compiles for, where a kernel calls a function
dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=(8, 0))
pixels, tones, table = types.uint8[::1], types.float32[::1], types.int64[:, ::1]
for capability in (8, 0), (9, 0), (10, 0):
    for kernel, arguments in (
        (kernels._binarize, (pixels, pixels, table)),
        (kernels._dodge, (pixels, pixels, table, types.int64)),
        (kernels._compose, (tones, pixels, types.int64)),
    ):
        print(cuda.compile_ptx(kernel.py_func, types.void(*arguments), cc=capability)[0])
"""


def test_numba_compiles() -> None:
    skip_if_numba_cannot_compile()
    ptx = run_python(COMPILE_NUMBA)
    assert ptx.count(".visible .entry") == 9
    for architecture in 80, 90, 100:
        assert f".target sm_{architecture}" in ptx


def run_python(code: str, *arguments: str, **environment: str) -> str:
    """Without an interpreter or simulator; returns what it prints."""
    compiling = {"TRITON_INTERPRET": "0", "NUMBA_ENABLE_CUDASIM": "0", **environment}
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | compiling,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.gpu
def test_large_images_are_the_reference(kernels: ModuleType, device: torch.device) -> None:
    grays = [noise(1401, 992), noise(1024, 2048, seed=1), noise(3, 40_000), edges(2000, 1999)]
    tones = [(gray / np.float32(230) - np.float32(0.05)).astype(np.float32) for gray in grays]
    images = on(device, grays)
    assert_equal(kernels.binarize(images), grays, reference.binarize)
    assert_equal(kernels.dodge(images, 1.3), grays, lambda gray: reference.dodge(gray, 1.3))
    assert_equal(kernels.compose(on(device, tones)), tones, reference.compose)


@pytest.mark.gpu
def test_many_images_at_once(kernels: ModuleType, device: torch.device) -> None:
    grays = [noise(1 + i % 131, 1 + i * 7 % 167, i) for i in range(2000)]
    assert_equal(kernels.binarize(on(device, grays)), grays, reference.binarize)
    assert_equal(kernels.dodge(on(device, grays)), grays, reference.dodge)


@pytest.mark.gpu
def test_each_thread_works_on_its_own_stream(kernels: ModuleType, device: torch.device) -> None:
    """What a kernel reads is written on the same stream, right before and without waiting."""
    grays = [noise(700, 500, seed) for seed in range(8)]

    def convert(gray: Gray) -> Tensor:
        with torch.cuda.stream(torch.cuda.Stream(device)):
            late = torch.from_numpy(gray).pin_memory()
            torch.cuda._sleep(10_000_000)
            image = late.to(device, non_blocking=True)
            binary = kernels.binarize([image])[0].cpu()
            del image
            return binary

    with ThreadPoolExecutor(4) as pool:
        assert_equal(list(pool.map(convert, grays)), grays, reference.binarize)
