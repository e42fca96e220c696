from __future__ import annotations

import dataclasses
import hashlib
import re
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import helper

from sketchify_rt import ModelError, models
from sketchify_rt.models import Model
from sketchify_rt.runtime import onnx_files


def model_of(path: Path) -> Model:
    """The model in a file, with a manifest that fits it."""
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest = dataclasses.replace(models.load("lite").manifest, sha256=sha256, int8_sha256=sha256)
    return Model(path, manifest)


@pytest.fixture
def apart(tmp_path: Path) -> Model:
    """`lite`, its weights in a file beside it."""
    path = tmp_path / "apart.onnx"
    onnx.save_model(
        onnx.load(models.load("lite").path), path, save_as_external_data=True, size_threshold=0
    )
    return model_of(path)


def test_external_data_is_refused_with_the_remedy(apart: Model) -> None:
    message = rf"{re.escape(str(apart.path))}: the model has external data: got .*, expected one f"
    with pytest.raises(ModelError, match=f"{message}.* Export it again as one file"):
        onnx_files.read(apart)


def test_every_runtime_refuses_external_data(apart: Model) -> None:
    from sketchify_rt.runtime.openvino import OpenVinoRuntime

    with pytest.raises(ModelError, match="has external data"):
        OpenVinoRuntime(apart, 1)
    torch = pytest.importorskip("torch")
    from sketchify_rt.runtime import unet

    with pytest.raises(ModelError, match="has external data"):
        unet.load(apart, torch.float32)


def test_a_reference_with_a_long_name_is_found(tmp_path: Path) -> None:
    weight = onnx.TensorProto(name="weight", dims=[1], data_type=onnx.TensorProto.FLOAT)
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="length", value="4")
    weight.external_data.add(key="location", value="x" * 1000)
    path = tmp_path / "apart.onnx"
    path.write_bytes(helper.make_graph([], "graph", [], [], [weight]).SerializeToString())
    with pytest.raises(ModelError, match="has external data"):
        onnx_files.read(model_of(path))


def test_the_word_location_elsewhere_is_no_external_data(tmp_path: Path) -> None:
    graph = helper.make_graph([], "location", [], [], doc_string="\n\x08location\x12")
    found = helper.make_model(graph)
    found.metadata_props.add(key="location", value="here")
    path = tmp_path / "whole.onnx"
    path.write_bytes(found.SerializeToString())
    assert onnx_files.read(model_of(path)) == path.read_bytes()


def test_a_model_is_read_without_the_package_onnx() -> None:
    lite = models.load("lite")
    code = """
import hashlib, sys
from sketchify_rt import models
from sketchify_rt.runtime import onnx_files
data = onnx_files.read(models.load("lite"))
print(hashlib.sha256(data).hexdigest(), "onnx" in sys.modules)
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == [lite.manifest.sha256, "False"]
