"""A short form of `make soak`."""

from __future__ import annotations

from benchmarks.soak import soak


def test_soak() -> None:
    assert soak(requests=1200, at_once=40)["served"] == 1200
