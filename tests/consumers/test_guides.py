"""The snippets of the guides that need a tracer: `make consumers` has an environment with each of them."""

from __future__ import annotations

import pytest

from tests.test_documents import SNIPPETS, test_snippet

TRACED = [param for param in SNIPPETS if any(name in str(param.values[0]) for name in ("langsmith", "openinference"))]

test_snippet_with_a_tracer = pytest.mark.parametrize("snippet", TRACED)(test_snippet)
