"""A short form of `make soak`."""

from __future__ import annotations

import pytest

from benchmarks.soak import soak


@pytest.mark.slow
def test_soak() -> None:
    assert soak(requests=1200, at_once=40)["served"] == 1200
