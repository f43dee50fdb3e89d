from __future__ import annotations

from collections.abc import Iterator

import pytest

from gploss.language.operators import OPERATORS, Operator, register_operator
from tests.strategies import SOFTRAMP


@pytest.fixture
def softramp() -> Iterator[Operator]:
    """A user's own operator, there for one test."""
    yield register_operator(SOFTRAMP)
    OPERATORS.unregister("softramp")
