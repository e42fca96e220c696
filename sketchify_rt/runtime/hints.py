"""The inputs of a U-Net that runs on tensors: a binary, and a hint if the model takes one."""

from __future__ import annotations

from torch import Tensor

from sketchify_rt.errors import InputError
from sketchify_rt.kernels.reference import CELL


def inputs(name: str, takes_hint: bool, binary: Tensor, hint: Tensor | None) -> tuple[Tensor, ...]:
    """The tensors to run a model on, in the order of its inputs.

    Args:
        name: Of the model, for messages.
        takes_hint: Whether the model has a second input.
        binary: (N, H, W).
        hint: uint8 (N, H / 8, W / 8), on the same device; None for "not known", which is zeros.

    Raises:
        InputError: The model takes no hint, or the hint does not fit the binary.
    """
    if not takes_hint:
        if hint is not None:
            raise InputError(
                f"{name}: the model takes no hint, got one of {tuple(hint.shape)}; pass None, or "
                "use a model with a hint"
            )
        return (binary,)
    count, height, width = binary.shape
    shape = (count, height // CELL, width // CELL)
    if hint is None:
        return binary, binary.new_zeros(shape)
    if hint.shape != shape or hint.dtype != binary.dtype or hint.device != binary.device:
        raise InputError(
            f"{name}: the hint does not fit the binary: got {hint.dtype} {tuple(hint.shape)} on "
            f"{hint.device}, expected {binary.dtype} {shape} on {binary.device}"
        )
    return binary, hint
