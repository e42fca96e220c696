from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnx.reference
import pytest

from sketchify_rt import ModelError, models, tiling
from sketchify_rt.image import Gray
from sketchify_rt.kernels import native
from sketchify_rt.models import Kind, Model
from sketchify_rt.options import ARITHMETICS, Arithmetic
from sketchify_rt.runtime.openvino import OpenVinoRuntime, Tones

LITE = models.load("lite")


@pytest.fixture(scope="module", params=ARITHMETICS)
def runtime(request: pytest.FixtureRequest) -> OpenVinoRuntime:
    return OpenVinoRuntime(LITE, threads=2, workers=2, precision=request.param)


def binary(*shape: int, seed: int = 0) -> Gray:
    return np.where(np.random.default_rng(seed).random(shape) < 0.3, 0, 255).astype(np.uint8)


def hint_of(pages: Gray) -> Gray:
    """Another value in each cell, beyond the page too; some are not known."""
    count, height, width = pages.shape
    shape = count, -(-height // 8), -(-width // 8)
    return (np.arange(math.prod(shape)) * 37 % 256).astype(np.uint8).reshape(shape)


def standard(kind: Kind, page: Gray, hint: Gray) -> Tones:
    """What a file computes as the ONNX standard says."""
    feeds = {"binary": page, "hint": hint}
    floats = {name: x[:, None].astype(np.float32) / 255 for name, x in feeds.items()}
    (tones,) = onnx.reference.ReferenceEvaluator(onnx.load(LITE.file(kind))).run(None, floats)
    return np.asarray(tones[:, 0])


@pytest.mark.parametrize(("precision", "levels"), [("fp32", 0.01), ("half", 8)])
def test_it_computes_what_the_onnx_standard_says(precision: Arithmetic, levels: float) -> None:
    page = binary(1, 48, 64)
    hint, unknown = hint_of(page), np.zeros((1, 6, 8), np.uint8)
    expected = standard("float", page, hint)
    runtime = OpenVinoRuntime(LITE, threads=2, precision=precision)
    np.testing.assert_allclose(runtime(page, hint), expected, atol=levels / 255)
    without = standard("float", page, unknown)
    np.testing.assert_allclose(runtime(page), without, atol=levels / 255)
    assert np.abs(expected - without).max() > 16 / 255


def test_int8_computes_what_its_own_file_says() -> None:
    # A sum that is rounded the other way is one step of 8 bits in the next layer.
    page = binary(1, 96, 128)
    tones = OpenVinoRuntime(LITE, threads=2, precision="int8")(page, hint_of(page))
    levels = 255 * np.abs(tones - standard("int8", page, hint_of(page)))
    assert levels.max() <= 4
    assert levels.mean() <= 0.15


def test_int8_is_near_float32_and_runs_in_integers() -> None:
    lake = cv2.imread(str(Path(__file__).parents[1] / "samples/lake.jpg"), 0)
    gray = np.ascontiguousarray(np.asarray(lake, np.uint8)[:800, :1000])
    page = native.binarize(gray)
    hint = native.hint(page, native.dodge(gray))
    tones = {
        precision: OpenVinoRuntime(LITE, threads=2, precision=precision)(page[None], hint[None])
        for precision in ARITHMETICS
    }
    levels = 255 * np.abs(tones["int8"] - tones["fp32"])
    assert 0 < levels.mean() <= 0.6
    assert levels.max() <= 64  # of strokes on the edge; 49 when measured
    assert (tones["int8"] != tones["half"]).any()


def test_a_model_without_an_int8_form_is_refused() -> None:
    bare = replace(LITE, manifest=replace(LITE.manifest, int8_sha256=None))
    with pytest.raises(ModelError, match="no INT8 form"):
        OpenVinoRuntime(bare, threads=1, precision="int8")


def test_tones_are_in_range_and_vary(runtime: OpenVinoRuntime) -> None:
    tones = runtime(binary(1, 64, 64))
    assert tones.dtype == np.float32
    assert 0 <= tones.min() < tones.max() - 0.1 < 0.9


def test_a_batch_is_its_images(runtime: OpenVinoRuntime) -> None:
    pages = binary(3, 64, 40)
    hint = hint_of(pages)
    singles = [runtime(pages[n : n + 1], hint[n : n + 1]) for n in range(3)]
    np.testing.assert_array_equal(runtime(pages, hint), np.concatenate(singles))


def test_a_strided_view_is_read_right(runtime: OpenVinoRuntime) -> None:
    page = binary(1, 200, 300)
    view, cells = page[:, 40:104, 8:72], hint_of(page)[:, 5:13, 1:9]
    np.testing.assert_array_equal(runtime(view, cells), runtime(view.copy(), cells.copy()))


def test_no_pixel_beyond_the_halo_matters_and_one_at_the_halo_does(
    runtime: OpenVinoRuntime,
) -> None:
    halo = LITE.manifest.halo
    side = tiling.padded(2 * halo + 40, LITE.manifest.stride)
    page = binary(1, side, side)
    before = runtime(page)
    reach = 0
    for place in range(side // 2, side // 2 + LITE.manifest.stride):
        changed = page.copy()
        changed[0, place, place] ^= 255
        rows, columns = np.nonzero((runtime(changed) != before)[0])
        reach = max(reach, *(abs(rows - place)), *(abs(columns - place)))
    assert halo - LITE.manifest.stride <= reach <= halo


@pytest.mark.parametrize("shape", [(300, 403), (8, 700), (517, 96)])
def test_tiles_equal_the_whole_exactly(runtime: OpenVinoRuntime, shape: tuple[int, int]) -> None:
    page = binary(*shape)
    hint = hint_of(page[None])[0]

    def paint(tile: int) -> Tones:
        tones = np.full(shape, np.nan, np.float32)
        for row, column in tiling.grid(shape, tile, LITE.manifest.halo, LITE.manifest.stride):
            cells = tiling.Tile(0, row, column).cells
            tile = tiling.cut(page, row, column), tiling.cut(hint, cells.row, cells.column)
            part = runtime(*(plane[None] for plane in tile))
            tones[row.keep, column.keep] = part[0, row.inner, column.inner]
        return tones

    np.testing.assert_array_equal(paint(256), paint(2048))


def test_less_than_the_halo_leaves_a_seam(runtime: OpenVinoRuntime) -> None:
    # The test above could not fail if the model looked at nothing but the pixel itself.
    page, stride = binary(300, 403), LITE.manifest.stride
    ((row, column),) = tiling.grid(page.shape, 2048, 0, stride)
    whole = runtime(tiling.cut(page, row, column)[None])[0, :300, :403]
    tones = np.full(page.shape, np.nan, np.float32)
    for row, column in tiling.grid(page.shape, 256, LITE.manifest.halo // 4, stride):
        part = runtime(tiling.cut(page, row, column)[None])
        tones[row.keep, column.keep] = part[0, row.inner, column.inner]
    assert (tones != whole).any()


def test_concurrent_calls_do_not_mix(runtime: OpenVinoRuntime) -> None:
    pages = [binary(1, 64 + 8 * i, 80, seed=i) for i in range(6)]
    expected = [runtime(page) for page in pages]
    with ThreadPoolExecutor(len(pages)) as pool:
        results = list(pool.map(lambda page: [runtime(page) for _ in range(5)], pages))
    for found, tones in zip(results, expected, strict=True):
        for each in found:
            np.testing.assert_array_equal(each, tones)


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    path = tmp_path / "junk.onnx"
    path.write_bytes(b"junk")
    manifest = replace(LITE.manifest, sha256=hashlib.sha256(b"junk").hexdigest())
    with pytest.raises(ModelError, match=r"junk\.onnx: OpenVINO cannot load it"):
        OpenVinoRuntime(Model(path, manifest), threads=1)


def test_nothing_is_reported_and_nothing_written_to_the_home(tmp_path: Path) -> None:
    code = """
import sys
import time
def watch(event, arguments):
    if event.startswith("socket."):
        print(event, arguments)
sys.addaudithook(watch)
import numpy as np
from sketchify_rt import Sketchifier
Sketchifier()(np.zeros((16, 16), np.uint8))
assert "openvino" in sys.modules and "openvino_telemetry" not in sys.modules
"""
    # Without CI, where OpenVINO's package keeps quiet by itself.
    variables = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True
    )
    assert done.stdout + done.stderr == ""
    assert list(tmp_path.rglob("*")) == []


def test_one_thread_is_one_processor() -> None:
    runtime = OpenVinoRuntime(LITE, threads=1)
    page = binary(1, 512, 512)
    runtime(page)
    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(5):
        runtime(page)
    assert time.process_time() - processor < 1.2 * (time.perf_counter() - wall)


def test_no_thread_is_bound_to_a_processor() -> None:
    # Those of several processes would be bound to the same one.
    code = """
import os
import numpy as np
from sketchify_rt import models
from sketchify_rt.runtime.openvino import OpenVinoRuntime

everywhere = os.sched_getaffinity(0)
runtime = OpenVinoRuntime(models.load("lite"), threads=2)
runtime(np.full((1, 64, 64), 255, np.uint8))
threads = [int(name) for name in os.listdir("/proc/self/task")]
assert len(threads) > 1
assert all(os.sched_getaffinity(thread) == everywhere for thread in threads)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_signals_are_survived_after_a_model_was_let_go_in_another_thread() -> None:
    code = """
import os, signal, threading
import numpy as np
from sketchify_rt import models
from sketchify_rt.runtime.openvino import OpenVinoRuntime

heard = []
signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))
held = [OpenVinoRuntime(models.load("lite"), threads=1)]
held[0](np.full((1, 64, 64), 255, np.uint8))
other = threading.Thread(target=held.clear)
other.start()
other.join()
os.kill(os.getpid(), signal.SIGUSR1)
assert heard
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, (done.returncode, done.stderr)
