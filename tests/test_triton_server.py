"""`sketchify-rt export-server`, against the server's schema as its own client ships it."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
from pathlib import Path

import click.testing
import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf import text_format
from onnx import TensorProto, helper
from plain import plain
from tritonclient.grpc import model_config_pb2

from sketchify_rt import ModelError, models
from sketchify_rt.cli.verbs import main
from sketchify_rt.integrations import triton_server
from sketchify_rt.models import Manifest, Model
from sketchify_rt.runtime.openvino import OpenVinoRuntime
from sketchify_rt.tensorrt import cache
from sketchify_rt.tensorrt.record import Check, Machine, Origin, Recipe, Record

pytestmark = pytest.mark.slow

DTYPES = {model_config_pb2.TYPE_FP32: np.float32}
PLAN = b"what TensorRT wrote"


def export(*arguments: object) -> click.testing.Result:
    return click.testing.CliRunner().invoke(main, ["export-server", *map(str, arguments)])


def config(folder: Path) -> model_config_pb2.ModelConfig:
    text = (folder / "config.pbtxt").read_text(encoding="utf-8")
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def engine(path: Path, recipe: Recipe) -> Path:
    manifest = models.load("lite").manifest
    sha256 = manifest.int8_sha256 if recipe.precision == "int8" else manifest.sha256
    origin = Origin(manifest.name, str(sha256))
    machine = Machine("11.4.0.106", "NVIDIA H200", "9.0")
    record = Record(origin, recipe, machine, Check(1, 0.1, 100, 8), "2026", 1.0)
    return cache.write(path, record, PLAN).path


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_exported_model_paints_as_its_configuration_says(
    tmp_path: Path, precision: str
) -> None:
    result = export(tmp_path / "models", "--precision", precision, "--queue-delay", 500)
    assert result.exit_code == 0, result.output
    folder = tmp_path / "models/lite"
    assert result.stdout == f"{folder}: onnxruntime, batches of up to 8\n"
    told = config(folder)
    assert (told.name, told.backend, told.max_batch_size) == ("lite", "onnxruntime", 8)
    assert told.dynamic_batching.max_queue_delay_microseconds == 500
    assert told.parameters["stride"].string_value == "8"
    assert told.parameters["halo"].string_value == "47"

    assert [each.name for each in told.input] == ["binary", "hint"]
    assert all(list(each.dims) == [1, -1, -1] for each in (*told.input, told.output[0]))
    ink = np.random.default_rng(0).random((2, 96, 136)) < 0.2
    binary = np.where(ink, 0, 255).astype(np.uint8)
    hint = (np.arange(2 * 12 * 17) % 256).astype(np.uint8).reshape(2, 12, 17)
    session = onnxruntime.InferenceSession(folder / "1/model.onnx")
    (tones,) = session.run(
        [told.output[0].name],
        {
            each.name: plane[:, None].astype(DTYPES[each.data_type]) / 255
            for each, plane in zip(told.input, (binary, hint), strict=True)
        },
    )
    assert tones.dtype == DTYPES[told.output[0].data_type]
    ours = OpenVinoRuntime(models.load("lite"), 1, precision=precision)(binary, hint)
    far = np.abs(np.rint(255 * tones[:, 0]) - np.rint(255 * ours))
    assert np.ptp(ours) > 0.5
    if precision == "fp32":
        assert far.max() <= 1
    else:  # both round between the layers, each in its way: 6 at most, 0.29 on average
        assert far.mean() <= 1


@pytest.mark.parametrize(
    ("recipe", "side", "cells", "kind"),
    [
        (Recipe(), 512, 64, model_config_pb2.TYPE_FP16),
        (Recipe("fp32", (8, 104, 160), (1, 1, 4)), -1, -1, model_config_pb2.TYPE_FP32),
        (Recipe("int8"), 512, 64, model_config_pb2.TYPE_FP16),
    ],
)
def test_an_engine_is_served_as_it_was_built(
    tmp_path: Path, recipe: Recipe, side: int, cells: int, kind: int
) -> None:
    built = engine(tmp_path / "engine", recipe)
    result = export(tmp_path, "--backend", "tensorrt", "--engine", built)
    assert result.exit_code == 0, result.output
    told = config(tmp_path / "lite")
    assert (told.backend, told.max_batch_size) == ("tensorrt", recipe.batch[2])
    assert list(told.dynamic_batching.preferred_batch_size) == [recipe.batch[1]]
    uint8 = model_config_pb2.TYPE_UINT8
    assert [(each.name, each.data_type, list(each.dims)) for each in told.input] == [
        ("binary", uint8, [1, side, side]),
        ("hint", uint8, [1, cells, cells]),
    ]
    (tones,) = told.output
    assert (tones.name, tones.data_type, list(tones.dims)) == ("tones", kind, [1, side, side])
    assert (tmp_path / "lite/1/model.plan").read_bytes() == PLAN


def test_a_model_without_a_hint_has_one_input(tmp_path: Path) -> None:
    model = plain(tmp_path / "plain.onnx")
    result = export(tmp_path / "models", "--model", model.path)
    assert result.exit_code == 0, result.output
    (binary,) = config(tmp_path / "models/plain").input
    assert (binary.name, list(binary.dims)) == ("binary", [1, -1, -1])


def test_a_model_is_replaced_only_if_asked_and_other_versions_stay(tmp_path: Path) -> None:
    built = engine(tmp_path / "engine", Recipe())
    assert export(tmp_path, "--quiet").stdout == ""
    other = tmp_path / "lite/2/model.onnx"
    other.parent.mkdir()
    other.write_bytes(b"another")
    refused = export(tmp_path, "--backend", "tensorrt", "--engine", built)
    assert refused.exit_code == 1
    assert "lite/config.pbtxt: exists already; give --overwrite" in refused.stderr
    assert config(tmp_path / "lite").backend == "onnxruntime"
    words = ("--backend", "tensorrt", "--engine", built, "--max-batch", 4, "--overwrite")
    assert export(tmp_path, *words).exit_code == 0
    told = config(tmp_path / "lite")
    assert (told.max_batch_size, *told.dynamic_batching.preferred_batch_size) == (4, 4)
    names = {path.name for path in (tmp_path / "lite").rglob("*") if path.is_file()}
    assert names == {"config.pbtxt", "model.plan", "model.onnx"}
    assert [path.name for path in (tmp_path / "lite/1").iterdir()] == ["model.plan"]
    assert other.read_bytes() == b"another"


def test_where_the_configuration_fails_no_model_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def config(served: triton_server.Served, delay: int) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(triton_server.Served, "config", config)
    result = export(tmp_path)
    assert result.exit_code == 1
    assert "config.pbtxt: cannot be written: No space left on device; make room" in result.stderr
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--backend", "tensorrt"), 2, "--backend tensorrt and --engine must be used together"),
        (("--engine", "e"), 2, "--backend tensorrt and --engine must be used together"),
        (
            ("--model", "huge"),
            1,
            "model must be one of lite, or the path of an .onnx file, got",
        ),
        (("--max-batch", "0"), 2, "0 is not in the range"),
        (
            ("--backend", "tensorrt", "--engine", "nowhere"),
            1,
            "nowhere: cannot be read",
        ),
    ],
)
def test_wrong_usage_is_told_and_nothing_written(
    tmp_path: Path, words: tuple[str, ...], code: int, message: str
) -> None:
    result = export(tmp_path / "models", *words)
    assert (result.exit_code, message in result.stderr) == (code, True), result.output
    assert not (tmp_path / "models").exists()


def test_an_engine_that_does_not_suit_is_refused(tmp_path: Path) -> None:
    words = (tmp_path / "models", "--backend", "tensorrt", "--engine")
    small = engine(tmp_path / "small", Recipe(batch=(2, 4, 8)))
    result = export(*words, small)
    assert result.exit_code == 2
    assert "takes batches of 2 to 8 images, expected 1 to 8" in result.stderr
    large = export(*words, engine(tmp_path / "large", Recipe()), "--max-batch", 64)
    assert large.exit_code == 2
    assert "takes batches of 1 to 32 images, expected 1 to 64" in large.stderr
    both = export(*words, small, "--precision", "int8")
    assert "--precision and --engine cannot be used together" in both.stderr
    assert not (tmp_path / "models").exists()


def toy(path: Path, name: str, shape: list[int | str]) -> Model:
    given, made = (
        helper.make_tensor_value_info(each, TensorProto.FLOAT, shape) for each in ('a"b', "tones")
    )
    nodes = [helper.make_node("Relu", [given.name], [made.name])]
    graph = helper.make_graph(nodes, "toy", [given], [made])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return Model(path, Manifest(name, sha256, 8, 0, 0, 0, {}, {}, "nobody", {}))


def test_names_lead_nowhere_else_and_are_quoted(tmp_path: Path) -> None:
    model = toy(tmp_path / "toy.onnx", "../toy", ["n", 1, "h", "w"])
    served = triton_server.of_onnx(model, max_batch=2)
    folder = triton_server.write(tmp_path / "models", served)
    assert folder == tmp_path / "models/---toy"
    told = config(folder)
    assert (told.name, told.input[0].name) == (folder.name, 'a"b')


def test_a_model_of_other_inputs_is_refused(tmp_path: Path) -> None:
    model = toy(tmp_path / "toy.onnx", "toy", ["n", 1, "h", "w"])
    graph = onnx.load(model.path)
    value = helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["n", 1, "h", "w"])
    graph.graph.input.append(value)
    graph.graph.node[0].output[0] = "ink"
    graph.graph.node.append(helper.make_node("Mul", ["ink", "mask"], ["tones"]))
    onnx.save(graph, model.path)
    sha256 = hashlib.sha256(model.path.read_bytes()).hexdigest()
    other = Model(model.path, dataclasses.replace(model.manifest, sha256=sha256))
    with pytest.raises(
        ModelError, match=r"toy.onnx: .* got a\"b, mask, tones, expected one input.* 'hint'"
    ):
        triton_server.of_onnx(other)


def test_a_model_of_one_image_is_refused(tmp_path: Path) -> None:
    model = toy(tmp_path / "toy.onnx", "toy", [1, 1, "h", "w"])
    with pytest.raises(ModelError, match=r"toy.onnx: .* 'a\"b': got f32 \[1, 1, -1, -1\]"):
        triton_server.of_onnx(model)
