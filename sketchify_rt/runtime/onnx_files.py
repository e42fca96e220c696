"""ONNX files: each model is one file, its weights inside."""

from __future__ import annotations

import re

from sketchify_rt.errors import ModelError
from sketchify_rt.models import Kind, Model

# A weight's reference to another file, as protobuf writes it: TensorProto.external_data, field 13,
# with the key "location". Found without the package onnx.
_EXTERNAL = re.compile(rb"\x6a(?:[\x00-\x7f]|[\x80-\xff][\x00-\x7f])\x0a\x08location\x12")


def read(model: Model, kind: Kind = "float") -> bytes:
    """Return the bytes of a model's ONNX file.

    Args:
        model: The model.
        kind: "float", or "int8" for its INT8 form.

    Raises:
        ModelError: The file cannot be read, is not the one its manifest was written for, or keeps
            weights in other files (external data).
    """
    data = model.read(kind)
    if _EXTERNAL.search(data):
        raise ModelError(
            f"{model.file(kind)}: the model has external data: got weights in other files, "
            "expected one file with all weights. Export it again as one file, with "
            "torch.onnx.export(..., external_data=False), or load it with onnx.load and save it "
            "with onnx.save"
        )
    return data
