"""`SketchTransform`, as torchvision, albumentations and a DataLoader call it."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from pictures import picture

from sketchify_rt import InputError, Sketchifier, SketchTransform

RGB = np.stack([picture(61, 83, seed) for seed in (1, 2, 3)], axis=2)
GRAY = RGB[..., 0]

# As torchvision calls what it is given, and turns a picture into a tensor.
TORCHVISION = """
import numpy, torch

class transforms:
    class Compose:
        def __init__(self, steps):
            self.steps = steps

        def __call__(self, image):
            for step in self.steps:
                image = step(image)
            return image

    class ToTensor:
        def __call__(self, image):
            return torch.from_numpy(numpy.array(image)).permute(2, 0, 1) / 255
"""

BOTH = """
import torch
from pages import DataLoader, Pages

if __name__ == "__main__":
    for start, workers in ("fork", 2), ("spawn", 1):
        loader = DataLoader(Pages("pages"), 2, num_workers=workers, multiprocessing_context=start)
        torch.save(list(loader), f"{start}.pt")
"""


@pytest.fixture(scope="module")
def transform() -> SketchTransform:
    return SketchTransform(mode="dodge")


def test_it_takes_every_option() -> None:
    expected = Sketchifier(mode="dodge", device="cpu", detail=64)(GRAY)
    np.testing.assert_array_equal(SketchTransform(mode="dodge", detail=64)(GRAY), expected)
    assert not np.array_equal(sketch(GRAY), expected)


def sketch(image: np.ndarray) -> np.ndarray:
    return Sketchifier(mode="dodge", device="cpu")(image)


@pytest.mark.parametrize("modes", ["RGB RGB", "RGBA RGBA", "L L", "P L"])
def test_a_pil_image_stays_one(transform: SketchTransform, modes: str) -> None:
    mode, back = modes.split()
    image = PIL.Image.fromarray(RGB).convert(mode)
    result = transform(image)
    assert (result.mode, result.size) == (back, image.size)
    expected = sketch(np.asarray(image.convert("RGB") if mode != "L" else image))
    np.testing.assert_array_equal(np.asarray(result.convert("L")), expected)
    if mode == "RGBA":
        assert result.getextrema()[3] == (255, 255)


def test_an_array_keeps_shape_and_type(transform: SketchTransform) -> None:
    np.testing.assert_array_equal(transform(GRAY), sketch(GRAY))
    colour, alone = transform(RGB), transform(GRAY[..., None])
    assert (colour.shape, alone.shape) == (RGB.shape, (*GRAY.shape, 1))
    np.testing.assert_array_equal(colour, np.repeat(sketch(RGB)[..., None], 3, axis=2))
    clear = np.concatenate([RGB, np.full_like(RGB[..., :1], 255)], axis=2)
    np.testing.assert_array_equal(transform(clear)[..., :3], colour)
    assert (transform(clear)[..., 3] == 255).all()
    floats = transform(RGB.astype(np.float32) / 255)
    assert floats.dtype == np.float32
    np.testing.assert_array_equal(np.rint(floats * 255), colour)


@pytest.mark.parametrize("lead", [(), (2,), (1, 2)])
def test_a_tensor_keeps_shape_and_type(transform: SketchTransform, lead: tuple[int, ...]) -> None:
    image = torch.from_numpy(RGB).permute(2, 0, 1).expand(*lead, 3, *GRAY.shape)
    result = transform(image)
    assert (result.shape, result.dtype) == (image.shape, torch.uint8)
    np.testing.assert_array_equal(result.reshape(-1, *GRAY.shape)[-1], sketch(RGB))
    floats = transform(image / 255)
    assert (floats.shape, floats.dtype) == (image.shape, torch.float32)
    assert torch.equal((floats * 255).round().byte(), result)


def test_no_images_of_a_batch_are_none(transform: SketchTransform) -> None:
    assert transform(torch.zeros(0, 3, 8, 8)).shape == (0, 3, 8, 8)


def test_the_size_is_what_the_options_make_it() -> None:
    small = SketchTransform(mode="dodge", square=32)
    assert small(RGB).shape == (32, 32, 3)
    assert small(torch.zeros(2, 1, 50, 40)).shape == (2, 1, 32, 32)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("page.jpg", "got str, expected a PIL image"),
        (torch.zeros(5, 8, 8), r"shape: got \(5, 8, 8\), expected \(..., C, H, W\)"),
        (torch.zeros(8, 8), r"shape: got \(8, 8\)"),
        (torch.zeros(1, 8, 8, dtype=torch.int32), "int32"),
        (np.zeros((4, 4), np.int64), "int64"),
    ],
)
def test_what_is_no_image_is_told(transform: SketchTransform, image: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        transform(image)


def test_it_is_called_as_albumentations_does(transform: SketchTransform) -> None:
    # Lambda(image=function): function(image, **what is known of it)
    told = {"cols": 83, "rows": 61, "shape": RGB.shape, "interpolation": 1}
    np.testing.assert_array_equal(transform(RGB, **told), transform(RGB))


def test_a_copy_does_the_same_and_so_do_threads(transform: SketchTransform) -> None:
    copy = pickle.loads(pickle.dumps(transform))
    assert repr(copy) == repr(transform)
    assert "mode='dodge'" in repr(transform)
    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(copy, [RGB] * 8):
            np.testing.assert_array_equal(result, transform(RGB))


def test_workers_of_a_data_loader_sketch(tmp_path: Path) -> None:
    page = Path(__file__).parents[1] / "docs/ecosystem.md"
    below = page.read_text(encoding="utf-8").split("## Data sets\n")[1]
    found = re.search(r"```python\n(.*?)```", below, re.DOTALL)
    assert found
    (tmp_path / "pages").mkdir()
    images = [picture(64, 96, seed) for seed in range(4)]
    for number, image in enumerate(images):
        PIL.Image.fromarray(image).convert("RGB").save(tmp_path / f"pages/{number}.png")
    for name, code in ("torchvision", TORCHVISION), ("pages", found[1]), ("both", BOTH):
        (tmp_path / f"{name}.py").write_text(code)
    result = subprocess.run(
        [sys.executable, "both.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    ours = [Sketchifier(device="cpu", threads=1, strength=1.2)(image) for image in images]
    for start in ("fork", "spawn"):
        got = torch.cat(torch.load(tmp_path / f"{start}.pt"))
        assert got.shape == (4, 3, 64, 96)
        np.testing.assert_array_equal((got[:, 1] * 255).round().byte(), np.stack(ours))
