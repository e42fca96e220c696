"""Sketches as a step of a training pipeline: torchvision, albumentations."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, cast

import numpy as np
from numpy.typing import NDArray

from sketchify_rt import inputs
from sketchify_rt.errors import InputError
from sketchify_rt.sketchifier import Sketchifier

if TYPE_CHECKING:
    import torch

    from sketchify_rt.options import Keywords

T = TypeVar("T")


class SketchTransform:
    """A function from an image to its sketch, with the same type, dtype and number of channels.

    An image is a PIL image; a NumPy array (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA; or a
    torch tensor (..., C, H, W), where C is 1 or 3. Arrays and tensors are uint8 in 0..255, or
    floats in 0..1. All colour channels of the sketch are equal but for look "color", and alpha is
    opaque. The sketch of a PIL image is L, RGB or RGBA if the image is, else L, or RGB with look
    "color"; it is upright, as the EXIF data say.

    Thread-safe. It can be pickled, and works in the workers of a DataLoader. Fork them before the
    first sketch: in a fork of a process that has made sketches it raises BackendUnavailable, see
    `Sketchifier`. Spawned workers always work.

    Examples:
        >>> transform = torchvision.transforms.Compose([SketchTransform(), ...])
        >>> transform = albumentations.Lambda(image=SketchTransform())
    """

    def __init__(self, model: str | os.PathLike[str] = "lite", **options: Unpack[Keywords]) -> None:
        """Opens a device; the model itself is opened on first use.

        Args:
            model: Name of a shipped model, or path of an ONNX file.
            **options: Fields of `Options`. By default `device` is "cpu", and `threads` is 1, since
                a DataLoader has a worker for each core.

        Raises:
            OptionsError: An option does not exist, or may not have that value.
            ModelError: The model cannot be read.
            BackendUnavailable: The device cannot be used.
        """
        options.setdefault("device", "cpu")
        options.setdefault("threads", 1)
        self._sketchify = Sketchifier(model, **options)

    def __call__(self, image: T, **params: object) -> T:
        """Makes the sketch of an image.

        Args:
            image: See the class.
            **params: What albumentations passes about the image; not used.

        Returns:
            The sketch.

        Raises:
            InputError: The image has another type, shape or dtype.
            SketchifyError: What a call of `Sketchifier` raises.
        """
        result: Any
        if inputs.is_pil(image):
            sketch = self._sketchify(image)
            mode = image.mode if image.mode in ("L", "RGB", "RGBA") else sketch.mode
            result = sketch.convert(mode)
        elif isinstance(image, np.ndarray):
            result = self._of_array(image)
        elif hasattr(image, "new_tensor"):  # of torch, which is slow to import
            result = self._of_tensor(cast("torch.Tensor", image))
        else:
            raise InputError(
                f"image has the wrong type: got {type(image).__name__}, expected a PIL image, a "
                "NumPy array or a torch tensor"
            )
        return result  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._sketchify.options})"

    def _of_array(self, image: NDArray[Any]) -> NDArray[Any]:
        floats = image.dtype.kind == "f"
        pixels = np.rint(image.clip(0, 1) * 255).astype(np.uint8) if floats else image
        sketch: NDArray[Any] = self._sketchify(pixels)
        if sketch.ndim == 3 and image.ndim == 2:
            sketch = sketch[..., 0]
        elif image.ndim == 3:
            sketch = _with_channels(sketch, image.shape[2])
        return (sketch / 255).astype(image.dtype) if floats else sketch

    def _of_tensor(self, image: torch.Tensor) -> torch.Tensor:
        import torch

        if image.dim() < 3 or image.shape[-3] not in (1, 3):
            raise InputError(
                f"image has the wrong shape: got {tuple(image.shape)}, expected (..., C, H, W) "
                "with C 1 or 3"
            )
        if 0 in image.shape[:-3]:
            return image
        floats = image.is_floating_point()
        pixels = (image.clamp(0, 1) * 255).round().byte() if floats else image
        *more, channels, _, _ = pixels.shape
        sketches = [
            torch.as_tensor(self._sketchify(each.permute(1, 2, 0).contiguous()))
            for each in pixels.reshape(-1, *pixels.shape[-3:])
        ]
        result = torch.stack(sketches).to(pixels.device)
        if result.dim() == 4:  # look color
            result = result.permute(0, 3, 1, 2)[:, :channels]
        else:
            result = result[:, None].repeat(1, channels, 1, 1)
        result = result.reshape(*more, *result.shape[1:])
        return result.to(image.dtype) / 255 if floats else result


def _with_channels(sketch: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """A sketch, (H, W) or (H, W, 3), as (H, W, channels), whose fourth is opaque alpha."""
    height, width = sketch.shape[:2]
    result = np.full((height, width, channels), 255, np.uint8)
    colours = min(channels, 3)
    result[..., :colours] = sketch[..., :colours] if sketch.ndim == 3 else sketch[..., None]
    return result
