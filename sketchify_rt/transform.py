"""Sketches as a step of the pipelines that feed a training: torchvision, albumentations."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from sketchify_rt import inputs
from sketchify_rt.errors import InputError
from sketchify_rt.sketchifier import Sketchifier

T = TypeVar("T")


class SketchTransform:
    """A function from an image to its sketch, of the same kind, type and number of channels.

    >>> transform = torchvision.transforms.Compose([SketchTransform(), ...])
    >>> transform = albumentations.Lambda(image=SketchTransform())

    An image is a PIL image; a NumPy array (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA; or a
    torch tensor (..., C, H, W), where C is 1 or 3. Arrays and tensors are uint8, or floats of 0..1.
    Colours come back equal, alpha opaque; PIL images that are not RGB or RGBA as L,
    and all of them upright, as their EXIF data have it.

    Thread-safe. It can be pickled, and goes into the workers of a DataLoader, forked or spawned;
    but a fork of a process that has made sketches gets BackendUnavailable, see `Sketchifier`.
    """

    def __init__(self, *, device: str = "cpu", threads: int | None = 1, **options: Any) -> None:
        """Take the fields of `Options` as keywords; raises what `Sketchifier` raises.

        One thread unless told otherwise, since there is a worker for each core already.
        """
        self._sketchify = Sketchifier(device=device, threads=threads, **options)

    def __call__(self, image: T, **params: object) -> T:
        """The sketch. params: what albumentations tells of the image; not used.

        Raises InputError for what is no such image, and what a call of `Sketchifier` raises.
        """
        result: Any
        if inputs.is_pil(image):
            mode = image.mode if image.mode in ("RGB", "RGBA") else "L"
            result = self._sketchify(image).convert(mode)
        elif isinstance(image, np.ndarray):
            result = self._of_array(image)
        elif hasattr(image, "new_tensor"):  # torch's, which need not be imported here
            result = self._of_tensor(image)
        else:
            raise InputError(
                "an image is a PIL image, a NumPy array or a torch tensor, not "
                f"{type(image).__name__}"
            )
        return result  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._sketchify.options})"

    def _of_array(self, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        floats = image.dtype.kind == "f"
        pixels = np.rint(image.clip(0, 1) * 255).astype(np.uint8) if floats else image
        sketch: npt.NDArray[Any] = self._sketchify(pixels)
        if image.ndim == 3:
            sketch = np.repeat(sketch[..., None], image.shape[2], axis=2)
            sketch[..., 3:] = 255
        return (sketch / 255).astype(image.dtype) if floats else sketch

    def _of_tensor(self, image: Any) -> Any:
        if image.dim() < 3 or image.shape[-3] not in (1, 3):
            raise InputError(
                f"the tensor has shape {tuple(image.shape)}; it must be (..., C, H, W), C 1 or 3"
            )
        floats = image.is_floating_point()
        pixels = (image.clamp(0, 1) * 255).round().byte() if floats else image
        *more, channels, height, width = pixels.shape
        sketches: list[Any] = [
            self._sketchify(each.permute(1, 2, 0).contiguous())
            for each in pixels.reshape(-1, channels, height, width)
        ]
        if not sketches:
            return image
        if isinstance(sketches[0], np.ndarray):  # of a tensor on a GPU it is one there
            sketches = [pixels.new_tensor(sketch) for sketch in sketches]
        height, width = sketches[0].shape
        result = pixels.new_empty((len(sketches), channels, height, width))
        for place, sketch in zip(result, sketches, strict=True):
            place.copy_(sketch)
        result = result.reshape(*more, channels, height, width)
        return result.to(image.dtype) / 255 if floats else result
