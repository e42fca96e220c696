from __future__ import annotations

import numpy as np
import pytest
import torch
from test_bilevel import drawing, pictures_with_tones, scanned
from test_image import ENLARGED, SIZES

from sketchify_rt import bilevel, image, tensors
from sketchify_rt.errors import InputError
from sketchify_rt.kernels import reference

RNG = np.random.default_rng(0)


def noise(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape, np.uint8)


def starts_of_rows(image: torch.Tensor) -> list[int]:
    """Where rows begin, in bytes, modulo what the kernels like."""
    assert image.stride(1) == 1
    return sorted({(image.data_ptr() + y * image.stride(0)) % 16 for y in range(image.shape[0])})


def test_rows_begin_where_the_kernels_like_it(device: torch.device) -> None:
    images = tensors.empty([(3, 5), (1, 1), (0, 0), (7, 32), (2, 33)], device)
    assert [tuple(tensor.shape) for tensor in images] == [(3, 5), (1, 1), (0, 0), (7, 32), (2, 33)]
    for number, tensor in enumerate(images):
        tensor.fill_(number)
    assert all((tensor == number).all() for number, tensor in enumerate(images))
    assert all(starts_of_rows(tensor) in ([0], []) for tensor in images)
    crop = images[3][1:5, 3:20]
    copy = tensors.aligned(crop)
    assert starts_of_rows(copy) == [0] and torch.equal(copy, crop)
    assert tensors.aligned(copy) is copy


def test_up_and_down_again(device: torch.device) -> None:
    grays = [noise(7, 9), noise(1, 1), noise(30, 5)[::2, ::-1]]
    up = tensors.upload(grays, device)
    assert all(tensor.device.type == device.type for tensor in up)
    assert all(starts_of_rows(tensor) == [0] for tensor in up)
    for gray, back in zip(grays, tensors.download(up), strict=True):
        np.testing.assert_array_equal(back, gray)
    np.testing.assert_array_equal(tensors.download([up[0].T])[0], grays[0].T)
    assert tensors.download([]) == []


def test_luma_equals_that_of_arrays(device: torch.device) -> None:
    colours = np.stack(np.meshgrid(*[np.arange(0, 256, 5, np.uint8)] * 3), -1).reshape(52, -1, 3)
    for pixels in (noise(20, 30), noise(20, 30, 1), colours, noise(200, 300, 4), noise(9, 9, 3)):
        luma = tensors.to_luma(torch.from_numpy(pixels).to(device))
        assert starts_of_rows(luma) == [0]
        np.testing.assert_array_equal(luma.cpu().numpy(), image.to_luma(pixels))


@pytest.mark.parametrize(
    "wrong",
    [
        torch.zeros(3, 3),
        torch.zeros(3, 3, 2, dtype=torch.uint8),
        torch.zeros(0, 3, dtype=torch.uint8),
    ],
)
def test_what_is_no_image_is_refused(wrong: torch.Tensor) -> None:
    with pytest.raises(InputError, match="expected uint8 of shape"):
        tensors.to_luma(wrong)


@pytest.mark.parametrize(("source", "target"), [*SIZES, ((1, 300_000), (1, 2000))])
def test_resize_is_the_references_within_one(
    device: torch.device, source: tuple[int, int], target: tuple[int, int]
) -> None:
    gray = noise(*source)
    resized = tensors.resize(torch.from_numpy(gray).to(device), *target)
    assert resized.dtype == torch.uint8 and resized.shape == target
    assert starts_of_rows(resized) == [0]
    for expected in reference.resize(gray, *target), image.resize(gray, *target):
        difference = resized.cpu().numpy().astype(int) - expected
        assert np.abs(difference).max() <= 1
        assert (difference == 0).mean() > 0.9


@pytest.mark.parametrize(("source", "target"), ENLARGED)
def test_enlarge_is_that_of_arrays_within_one(
    device: torch.device, source: tuple[int, int], target: tuple[int, int]
) -> None:
    gray = noise(*source)
    enlarged = tensors.enlarge(torch.from_numpy(gray).to(device), *target)
    assert enlarged.dtype == torch.uint8 and starts_of_rows(enlarged) == [0]
    difference = enlarged.cpu().numpy().astype(int) - image.enlarge(gray, *target)
    assert np.abs(difference).max() <= (2 if max(target) > 30_000 else 1)
    assert (difference == 0).mean() > 0.9


def test_reduced_pages_are_binarized_as_on_the_cpu(device: torch.device) -> None:
    page = drawing()
    small = image.resize(page, 296, 222)
    there = tensors.resize(torch.from_numpy(page).to(device), 296, 222).cpu().numpy()
    assert (reference.binarize(small) != reference.binarize(there)).mean() < 2e-4


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (7, 9), (8, 8), (33, 250), (301, 5), (239, 407), (1401, 992)]
)
def test_hint_is_the_references(device: torch.device, height: int, width: int) -> None:
    tones = noise(height, width)
    for binary in (noise(height, width) % 3, np.zeros_like(tones), np.full_like(tones, 255)):
        hint = tensors.hint(*tensors.upload([binary, tones], device))
        assert hint.dtype == torch.uint8 and hint.device.type == device.type
        np.testing.assert_array_equal(hint.cpu().numpy(), reference.hint(binary, tones))


@pytest.mark.parametrize("quality", [60, 95])
def test_black_and_white_pages_are_those_of_the_cpu(device: torch.device, quality: int) -> None:
    page = scanned(drawing(), quality)
    grays = [page, drawing(220, 40), *pictures_with_tones().values()]
    levels = [tensors.bilevel_level(gray) for gray in tensors.upload(grays, device)]
    assert levels == [bilevel.level(gray) for gray in grays]
    assert None not in levels[:2]
    assert set(levels[2:]) == {None}
