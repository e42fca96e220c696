"""Every skip of the suite. Where SKETCHIFY_TEST_ALL is set, what would be skipped fails."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

from sketchify_rt.kernels import native


def skip(reason: str) -> NoReturn:
    if os.environ.get("SKETCHIFY_TEST_ALL"):
        pytest.fail(f"must run here: {reason}")
    pytest.skip(reason)


@pytest.fixture(params=["baseline", "avx2", "avx512"])
def isa(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name not in native.isas():
        skip(f"this processor has no {name}")
    return name
