"""An ONNX file together with the files that its weights may lie in, its external data.

`onnx`, 0.15 s to import, is needed only where there are such files.
"""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

from sketchify_rt.errors import BackendUnavailable, ModelError


def digest(path: Path, data: bytes) -> str:
    """SHA-256 of an ONNX file and its external data, hexadecimal; of the bytes where it has none.

    path: where the file lies. data: what is in it. Raises ModelError where it is no ONNX file, and
    where a file that it refers to is missing or outside of its folder; BackendUnavailable where
    there are such files, and the package onnx is not installed.
    """
    total = hashlib.sha256(data)
    for file in _external(path, data):
        with file.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()


def load(path: Path, data: bytes) -> bytes:
    """The same ONNX with its external data inside. Parameters and errors are those of `digest`."""
    if not _external(path, data):
        return data
    import onnx

    model = onnx.load_model_from_string(data)
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise ModelError(f"{path}: its external data cannot be read ({error})") from error
    whole: bytes = model.SerializeToString()
    return whole


def _external(path: Path, data: bytes) -> list[Path]:
    """The files that weights of the model lie in, in the order of their names."""
    if b"location" not in data:  # the key of each reference to a file
        return []
    try:
        import onnx
    except ImportError as error:
        raise BackendUnavailable(
            f"{path}: its weights lie in files of their own, which takes the package onnx to read; "
            "`pip install onnx`, or save the model as one file"
        ) from error
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        graph = onnx.load_model_from_string(data).graph
    except DecodeError as error:
        raise ModelError(f"{path}: not an ONNX file ({error})") from error
    constants = (a.t for node in graph.node for a in node.attribute)
    names = {
        entry.value
        for weight in itertools.chain(graph.initializer, constants)
        if weight.data_location == onnx.TensorProto.EXTERNAL
        for entry in weight.external_data
        if entry.key == "location"
    }
    folder = path.parent.resolve()
    files = []
    for name in sorted(names):
        file = (folder / name).resolve()
        if not file.is_relative_to(folder):
            raise ModelError(
                f"{path}: its weights are to be in {name!r}, outside of its folder; "
                "save the model with its external data beside it"
            )
        if not file.is_file():
            raise ModelError(
                f"{path}: its weights are in {name!r}, and there is no such file beside it; "
                "copy it there as well"
            )
        files.append(file)
    return files
