"""Every kind of module trains as the loop that anybody would write, whichever way is taken."""

from __future__ import annotations

from typing import Final

import pytest

from recmodels.models.base import ModelFactory
from tests.recmodels.training.kinds import FILES
from tests.recmodels.training.kinds.compare import compare

KINDS: Final[dict[str, ModelFactory]] = {text: made for kinds in FILES.values() for text, made in kinds.items()}

#: Where rounding is coarser than float32's, or turns a ReLU over.
COARSE: Final = {
    "all in bfloat16": 0.05,
    "all in float16": 0.01,
    "automatic mixed precision": 0.05,
    "linear layers and ReLU": 5e-3,
    "DeepModel, as it comes": 5e-3,
}

#: Ways that would not be noticed if they were no longer taken, as slower ones give the same.
WAYS: Final = {
    "MF, as it comes": "fused",
    "MF, a subclass that does the same": "fused",
    "MF, changed by a hook": "stacked",
    "DeepModel, as it comes": "stacked",
    "factorisation machine": "stacked",
    "mixture of experts": "stacked",
    "parts that are never used": "stacked",
    "a lookup under no_grad": "stacked, mapped",
    "layer norm": "stacked, mapped",
    "multi-head attention": "stacked, mapped",
    "GRU": "one by one",
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("text", KINDS)
def test_every_kind_of_module_trains_as_in_a_plain_loop(text: str) -> None:
    found = compare(KINDS[text], ("sgd", "adagrad")[list(KINDS).index(text) % 2])  # the table has both for each
    bound = COARSE.get(text, 2e-4)
    assert found.scores <= bound, found
    assert found.weights <= bound, found
    assert found.way == WAYS.get(text, found.way), found
