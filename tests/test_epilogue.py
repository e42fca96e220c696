"""The bias and ReLU kernel, which runs in Triton's interpreter where there is no GPU."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from sketchify_rt.runtime import epilogue

pytestmark = pytest.mark.slow


@pytest.mark.usefixtures("interpreter")
def test_bias_and_relu_in_one_pass_are_those_of_torch(device: torch.device) -> None:
    # In Triton's interpreter where there is no GPU.
    for channels, rectify in ((24, True), (4, False)):
        sums = torch.randn(2, channels, 7, 9, device=device).half()
        sums = sums.contiguous(memory_format=torch.channels_last)
        bias = torch.randn(channels, device=device).half()
        expected = sums + bias[:, None, None]
        if rectify:
            expected.relu_()
        epilogue.finish(sums, bias, rectify)
        assert torch.equal(sums, expected)


def test_the_kernel_compiles_for_every_card_and_moves_16_bytes_at_a_time() -> None:
    code = """
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from sketchify_rt.runtime.epilogue import _finish
signature = dict(sums="*fp16", bias="*fp16", size="i32")
constants = dict(channels=64, rectify=True, block=2048)
divisible = {(i,): [["tt.divisibility", 16]] for i in range(3)}
for card in (80, 90, 100):
    types = signature | dict.fromkeys(constants, "constexpr")
    values = {(i + 3,): value for i, value in enumerate(constants.values())}
    source = ASTSource(_finish, types, values, divisible)
    ptx = compile(source, target=GPUTarget("cuda", card, 32)).asm["ptx"]
    print(ptx.count("ld.global"), ptx.count("ld.global.v4.b32"), ptx.count("st.global.v4.b32"))
"""
    variables = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True
    )
    assert done.stdout == "4 4 2\n" * 3


# On a GPU.
