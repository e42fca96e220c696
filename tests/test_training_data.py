from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch
from pictures import picture

from sketchify_rt.image import Gray, resize
from sketchify_rt.kernels import reference
from training import augment, data
from training.data import Batch, Batches, as_tensor, loader
from training.errors import TrainingError
from training.pages import Pages
from training.recipe import Recipe, UNetConfig
from training.screentone import screentone

PAGES = Pages(("a", "b"), (picture(300, 260, 1), picture(256, 400, 2)))
RECIPE = Recipe(steps=6, batch=4, seed=7)
PLAIN = dataclasses.replace(RECIPE, data="plain")


def equal(one: Batch, other: Batch) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_batch_is_pairs_of_the_filters() -> None:
    only = Pages(("only",), (picture(256, 256, 5),))
    turns = [
        np.rot90(side, k) for side in (only.images[0], only.images[0][:, ::-1]) for k in range(4)
    ]
    whole = 0
    batch = Batches(only, PLAIN)[0]
    for binary, target in zip(batch.binary[:, 0], batch.target[:, 0], strict=True):
        for gray in turns:  # where it is not enlarged
            if np.array_equal(target, reference.dodge(np.ascontiguousarray(gray))):
                np.testing.assert_array_equal(
                    binary, reference.binarize(np.ascontiguousarray(gray))
                )
                whole += 1
                break
    assert whole


@pytest.mark.parametrize("kind", ["augmented", "plain", "squares"])
def test_a_batch_depends_on_its_number_alone(kind: str) -> None:
    recipe = dataclasses.replace(RECIPE, data=kind)  # type: ignore[arg-type]
    batches = Batches(PAGES, recipe)
    third = batches[3]
    assert [part.shape for part in third] == [(4, 1, 256, 256), (4, 1, 32, 32), (4, 1, 256, 256)]
    assert all(part.dtype == np.uint8 for part in third)
    assert set(np.unique(third.binary)) <= {0, 255}
    assert equal(Batches(PAGES, recipe)[3], third)
    assert not equal(batches[4], third) or kind == "squares"  # two pages, four places
    if kind != "squares":
        assert not equal(Batches(PAGES, dataclasses.replace(recipe, seed=8))[3], third)


def test_a_hint_is_not_known_or_the_mean_or_the_map() -> None:
    recipe = dataclasses.replace(PLAIN, model=UNetConfig(hint=True), batch=200)
    batch = Batches(PAGES, recipe)[0]
    kinds = Counter()
    for binary, hint, target in zip(*(part[:, 0] for part in batch), strict=True):
        black = binary == 0
        mean = round(1 + 254 / 255 * (255 - target[black].mean()))
        if not hint.any():
            kinds["none"] += 1
        elif (hint == mean).all():
            kinds["mean"] += 1
        else:
            plain = reference.hint(binary, target)
            assert np.abs(hint.astype(int) - plain).mean() < 8  # but for sigma
            kinds["map"] += 1
    assert 40 < kinds["none"] < 80
    assert 25 < kinds["mean"] < 55
    assert 80 < kinds["map"] < 120

    without = Batches(PAGES, dataclasses.replace(recipe, model=UNetConfig()))[0]
    assert np.array_equal(without.binary, batch.binary)
    assert not without.hint.any()


def test_the_hint_is_of_what_the_binary_was_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    def fade(gray: Gray, rng: np.random.Generator) -> Gray:
        return 200 + gray // np.uint8(8)

    monkeypatch.setattr(data, "_DAMAGES", ((fade, 1.0),))
    recipe = Recipe(model=UNetConfig(hint=True), batch=10, no_hint=0, mean_hint=0, steps=1)
    batch = Batches(PAGES, recipe)[0]
    for binary, hint, target in zip(*(part[:, 0] for part in batch), strict=True):
        assert hint.mean() < reference.hint(binary, target).mean() / 2  # strokes are faint


def test_crops_that_are_not_augmented_are_pieces_of_the_pages_upright() -> None:
    # Each pixel tells where it is.
    rows, columns = np.mgrid[:200, :200].astype(np.uint8)
    for page, down, across in ((rows, 1, 0), (columns, 0, 1)):
        rng = np.random.default_rng(0)
        steps = set()
        for _ in range(50):
            crop = augment.cut(page, 64, rng).astype(int)
            assert set(np.diff(crop, axis=0).flat) == {down}
            steps |= set(np.diff(crop, axis=1).flat)
        assert steps == {across, -across}

    def shares(augmented: float) -> list[bool]:
        recipe = dataclasses.replace(PLAIN, data="augmented", augmented=augmented, batch=100)
        pages = Pages(("flat",), (np.full((300, 300), 200, np.uint8),))
        targets = Batches(pages, recipe)[0].target
        return [bool((target == targets[0, 0, 0, 0]).all()) for target in targets]

    assert all(shares(0))
    assert 30 < sum(shares(0.7)) < 100 > sum(shares(1))


def drawing() -> Gray:
    """A stroke of 3 pixels and a solid black."""
    page = np.full((256, 256), 255, np.uint8)
    page[40:43, 20:230] = 0
    page[100:200, 100:200] = 0
    return page


@pytest.mark.parametrize("darkness", [0.15, 0.35, 0.6, 1.0])
def test_a_pencil_draws_lines_of_one_tone_and_dark_areas(darkness: float) -> None:
    binary, drawn = augment.page(drawing(), darkness, np.random.default_rng(0))
    np.testing.assert_array_equal(binary, drawing())
    along = drawn[41, 25:225]
    assert along.min() == along.max() == round(255 * (1 - darkness))
    area = drawn[120:180, 120:180]
    assert area.min() == area.max() <= min(60 if darkness >= 0.35 else 255, along[0])
    assert (drawn[220:] == 255).all()


def test_ink_with_white_flecks_stays_even() -> None:
    page = np.zeros((200, 200), np.uint8)
    rows, columns = np.random.default_rng(0).integers(0, 200, (2, 400))
    page[rows, columns] = 255
    page = np.asarray(cv2.dilate(page, np.ones((2, 2))), np.uint8)
    _, drawn = augment.page(page, 0.35, np.random.default_rng(0))
    away = cv2.erode(255 - page, np.ones((3, 3))) > 0  # from the soft edges of the flecks
    # A morphological opening of 11 pixels gave 17: dark spots where no fleck is near.
    assert drawn[50:150, 50:150][away[50:150, 50:150]].std() < 6


def test_a_picture_with_tones_is_drawn_in_ink_before_it_is_a_page() -> None:
    binary, drawn = augment.page(picture(256, 256, 3), 1.0, np.random.default_rng(0))
    assert set(np.unique(binary)) == {0, 255}
    assert 0.01 < (binary == 0).mean() < 0.9
    assert (drawn[binary == 255] > 100).mean() > 0.9


def test_a_page_has_its_pencil_as_hint() -> None:
    recipe = Recipe(model=UNetConfig(hint=True), pages=1.0, batch=60, steps=1)
    batch = Batches(Pages(("page",), (drawing(),)), recipe)[0]
    pages = 0
    for binary, hint, target in zip(*(part[:, 0] for part in batch), strict=True):
        if hint.min() != hint.max() or not hint.any() or (binary == 255).all():
            continue  # a scene, or next to nothing of the page
        darkness = (int(hint[0, 0]) - 1) / 254
        assert target[binary == 0].max() >= 255 * (1 - darkness) - 2  # of a line, if there is one
        assert target[binary == 0].mean() <= 255 * (1 - darkness) + 90  # with its soft edges
        pages += 1
    assert pages > 20
    with pytest.raises(ValueError, match=r"0 without a hint, got 0\.5"):
        Recipe(pages=0.5)


def test_a_share_of_the_changed_crops_become_ink(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = 0

    def ink(gray: Gray, rng: np.random.Generator) -> Gray:
        nonlocal drawn
        drawn += 1
        return gray

    monkeypatch.setattr(augment, "ink", ink)
    recipe = dataclasses.replace(PLAIN, data="augmented", batch=200)
    found = []
    for share in 0.0, 0.3, 0.9:
        drawn = 0
        Batches(PAGES, dataclasses.replace(recipe, ink=share))[0]
        found.append(drawn)
    assert found[0] == 0
    assert 30 < found[1] < 80  # a tenth are scenes
    assert 145 < found[2] < 190


def test_processes_share_a_batch() -> None:
    whole = Batches(PAGES, RECIPE)[2]
    parts = [Batches(PAGES, RECIPE, rank, 2)[2] for rank in range(2)]
    for place in range(4):
        for part, both in zip(parts[place % 2], whole, strict=True):
            np.testing.assert_array_equal(part[place // 2], both[place])


@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes")  # for a core
@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_keeps_the_order(workers: int) -> None:
    cv2.GaussianBlur(np.zeros((2000, 2000), np.uint8), (21, 21), 0)  # starts OpenCV's threads
    threads = cv2.getNumThreads()
    batches = Batches(PAGES, RECIPE)
    found = list(loader(batches, 2, workers))
    assert len(found) == 4
    assert cv2.getNumThreads() == threads
    for step, batch in enumerate(found, 2):
        for part, expected in zip(batch, batches[step], strict=True):
            assert torch.equal(part, torch.from_numpy(expected))


def test_squares_are_each_page_once_an_epoch_cut_as_in_2017() -> None:
    recipe = dataclasses.replace(RECIPE, data="squares", batch=2, crop=64)
    portrait, landscape = PAGES.images[0][:260], PAGES.images[1][:, 72 : 72 + 256]
    wanted = {reference.dodge(resize(square, 64, 64)).tobytes() for square in (portrait, landscape)}
    for step in range(3):
        assert {target.tobytes() for target in Batches(PAGES, recipe)[step].target} == wanted


def test_pages_smaller_than_a_crop_are_refused() -> None:
    with pytest.raises(TrainingError, match="at least 256"):
        Batches(Pages(("small",), (picture(100, 300),)), RECIPE)


def test_tensors_are_shares_of_white() -> None:
    tensor = as_tensor(np.array([[[0, 51, 255]]], np.uint8))
    assert tensor.tolist() == [[[[0.0, pytest.approx(0.2), 1.0]]]]


@pytest.mark.parametrize(
    "change",
    [
        augment.ink,
        augment.pencil,
        screentone,
        augment.tone_curve,
        augment.soften,
        augment.jpeg,
        augment.grain,
        augment.binarize,
    ],
)
def test_a_change_is_a_picture_of_the_same_size_drawn_from_its_dice_alone(
    change: Callable[[Gray, np.random.Generator], Gray],
) -> None:
    gray = picture(97, 131, 3)
    before = gray.copy()
    one, same, other = (change(gray, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one.dtype == np.uint8
    assert one.shape == gray.shape
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    assert not np.array_equal(one, gray)
    np.testing.assert_array_equal(gray, before)


def test_crops_show_from_two_thirds_of_their_side_to_all_of_the_page() -> None:
    across = np.tile(np.linspace(0, 255, 900).astype(np.uint8), (600, 1))
    rng = np.random.default_rng(0)
    shown = []
    for _ in range(200):
        crop = augment.crop(across, 128, rng)
        assert crop.shape == (128, 128)
        span = float(np.ptp(crop.astype(np.float64)))
        shown.append(span / 255 * 900 / 128)  # pages pixels for each pixel of the crop
    assert min(shown) == pytest.approx(1 / 1.5, rel=0.1)
    assert max(shown) == pytest.approx(600 / 128, rel=0.15)
    assert np.mean(np.abs(np.array(shown) - 1) < 0.05) == pytest.approx(0.5, abs=0.15)


def test_ink_is_lines_on_paper() -> None:
    gray = np.full((256, 256), 230, np.uint8)
    cv2.circle(gray, (120, 130), 70, 110, cv2.FILLED)
    drawings = [augment.ink(gray, np.random.default_rng(seed)) for seed in range(60)]
    lines_alone = [d for d in drawings if (d > 250).mean() > 0.5]
    assert len(lines_alone) > 5
    blacks = [int(d.min()) for d in drawings]
    assert 0.1 < np.mean(np.array(blacks) == 0) < 0.6  # of scans and of pages drawn on a screen


def test_a_tone_curve_keeps_the_order_of_tones() -> None:
    ramp = np.arange(256, dtype=np.uint8)[None]
    for seed in range(20):
        curve = augment.tone_curve(ramp, np.random.default_rng(seed))[0].astype(int)
        assert (np.diff(curve) >= 0).all()
        assert curve[0] <= 40
        assert curve[-1] >= 225


def test_grain_is_no_more_than_a_scanner_s() -> None:
    flat = np.full((200, 200), 128, np.uint8)
    for seed in range(10):
        noisy = augment.grain(flat, np.random.default_rng(seed)).astype(float)
        assert 0.4 < noisy.std() < 3.3
        assert noisy.mean() == pytest.approx(128, abs=0.2)


def test_another_threshold_draws_other_lines() -> None:
    gray = picture(200, 200, 6)
    ours = reference.binarize(gray)
    others = [augment.binarize(gray, np.random.default_rng(seed)) for seed in range(20)]
    assert all(set(np.unique(page)) <= {0, 255} for page in others)
    shares = [float((page == 0).mean()) for page in others]
    assert min(shares) < float((ours == 0).mean()) < max(shares)
