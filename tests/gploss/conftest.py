from __future__ import annotations

from collections.abc import Iterator

import pytest

from gploss.language.operators import OPERATORS, Operator, register_operator
from tests.strategies import SOFTPLUS


@pytest.fixture
def softplus() -> Iterator[Operator]:
    """A user's own operator, there for one test."""
    yield register_operator(SOFTPLUS)
    OPERATORS.unregister("softplus")
