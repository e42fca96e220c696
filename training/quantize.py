"""Quantize an exported model to INT8, calibrated on training crops."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import os
import sys
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from sketchify_rt.models import Model
from sketchify_rt.runtime.openvino import without_telemetry
from training.data import Batches
from training.pages import Pages
from training.recipe import Recipe, lite

# NNCF measures with ONNX Runtime, which reports its use as well, unless told before it is loaded.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
with without_telemetry():
    import nncf
    from nncf.quantization import range_estimator as ranges

# Weights of 7 bits. With 8, sums overflow 16 bits on processors without VNNI: with AVX-512 the SSIM
# of the first "lite" falls from 0.860 to 0.744. NNCF's default spares the first layer alone, and
# the sketch depends on the processor: 0.16 levels from float32 on average, or 0.28. With 7 it is
# 0.18 on all.
_OVERFLOW_FIX = nncf.OverflowFix.ENABLE

_CROP = 256  # pixels, which each prepared page has

# Of each crop the range without its outermost thousandth, of all crops the widest. With the mean of
# the crops' ranges, NNCF's default, dark pages are clipped: SSIM of engravings falls by 0.2. With
# the whole ranges the steps are coarse: SSIM of "lite" falls by up to 0.0029, with these by 0.0006.
_OUTLIERS = 1e-3
_RANGES = ranges.RangeEstimatorParameters(
    min=ranges.StatisticsCollectorParameters(
        ranges.StatisticsType.QUANTILE, ranges.AggregatorType.MIN, quantile_outlier_prob=_OUTLIERS
    ),
    max=ranges.StatisticsCollectorParameters(
        ranges.StatisticsType.QUANTILE, ranges.AggregatorType.MAX, quantile_outlier_prob=_OUTLIERS
    ),
)


def quantize(model: Model, pages: Pages, crops: int, seed: int) -> Model:
    """Write the INT8 form of `model` beside it, and its SHA-256 into the manifest.

    crops: how many, of 256 x 256 pixels, the ranges of the activations are measured on; `seed`
    chooses them. Equal arguments give equal bytes.
    """
    source = onnx.load_model_from_string(model.read())
    told = {entry.key: entry.value for entry in source.metadata_props}
    graph = to_int8(source, pages, crops, seed)
    onnx.helper.set_model_props(graph, told)
    onnx.checker.check_model(graph, full_check=True)
    content = graph.SerializeToString()
    manifest = dataclasses.replace(
        model.manifest, int8_sha256=hashlib.sha256(content).hexdigest(), int8_metrics={}
    )
    model.file("int8").write_bytes(content)
    manifest.write(model.path.with_suffix(".json"))
    return dataclasses.replace(model, manifest=manifest)


def to_int8(model: onnx.ModelProto, pages: Pages, crops: int, seed: int) -> onnx.ModelProto:
    """The convolutions in INT8, between QuantizeLinear and DequantizeLinear; biases stay FP32.

    Weights are int8, symmetric for each output channel; activations uint8 of one scale, with zero
    point 0, or 128 where there are negative values. Both are what a symmetric int8 can hold.
    """
    names = [value.name for value in model.graph.input]
    recipe = lite(len(pages)) if "hint" in names else Recipe()
    recipe = dataclasses.replace(recipe, steps=crops, batch=1, crop=_CROP, seed=seed)
    batches = Batches(pages, recipe)

    def inputs(step: int) -> dict[str, Any]:
        batch = batches[step]
        return {name: getattr(batch, name).astype(np.float32) / 255 for name in names}

    data = nncf.Dataset(range(crops), inputs)
    logging.getLogger("nncf").setLevel(logging.ERROR)  # `set_log_level` changes handlers of others
    with contextlib.redirect_stdout(sys.stderr):  # its progress
        quantized: onnx.ModelProto = nncf.quantize(
            widen_weights(model),
            data,
            preset=nncf.QuantizationPreset.PERFORMANCE,  # symmetric activations
            subset_size=crops,
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                overflow_fix=_OVERFLOW_FIX, activations_range_estimator_params=_RANGES
            ),
        )
    unsign(quantized)
    del quantized.graph.value_info[:]
    return quantized


def widen_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """FP32 weights in place of FP16 ones and their casts, which NNCF would not quantize."""
    graph = model.graph
    halves = {weight.name: weight for weight in graph.initializer}
    casts = [node for node in graph.node if node.op_type == "Cast" and node.input[0] in halves]
    for cast in casts:
        weight = halves[cast.input[0]]
        full = numpy_helper.to_array(weight).astype(np.float32)
        weight.CopyFrom(numpy_helper.from_array(full, cast.output[0]))
        graph.node.remove(cast)
    return model


def unsign(model: onnx.ModelProto) -> None:
    """Write the activations that are int8 of zero point 0 as uint8 of zero point 128, in place.

    The numbers are the same. OpenVINO 2026.4 computes wrong ones from the former, by 14 levels of
    255 on average, where they have passed a concatenation.
    """
    graph = model.graph
    zeros = {node.input[2] for node in graph.node if node.op_type == "QuantizeLinear"}
    for tensor in graph.initializer:
        if tensor.name in zeros and tensor.data_type == onnx.TensorProto.INT8:
            zero = numpy_helper.to_array(tensor).astype(np.int16) + 128
            tensor.CopyFrom(numpy_helper.from_array(zero.astype(np.uint8), tensor.name))
