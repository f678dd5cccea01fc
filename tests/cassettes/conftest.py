"""What the replayed tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _replayed_whole(request: pytest.FixtureRequest, recording: bool) -> Iterator[None]:
    """On replay, insist that each recorded answer was asked for: a test may not pass without its wire."""
    cassette = request.getfixturevalue("vcr") if request.node.get_closest_marker("vcr") else None
    yield
    if cassette is not None and not recording:
        assert cassette.all_played, "The cassette holds answers that were not asked for. Record it again."
