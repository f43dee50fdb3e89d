"""Settings: what is declared, what members may choose, and what is said to a wrong choice."""

from __future__ import annotations

import math
from typing import Any

import pytest

from gploss.setting import Setting, complete

RATE = Setting("rate", 0.1, 0.01, 1.0)
SIZE = Setting("size", 64, 8, 512, "whole", least=1)
SHARE = Setting("share", 0.1, 0.01, 0.5, most=1)
DECLARED = {setting.name: setting for setting in (RATE, SIZE, SHARE)}


def test_what_is_not_named_has_its_default() -> None:
    assert complete({}, DECLARED) == {"rate": 0.1, "size": 64.0, "share": 0.1}
    chosen = complete({"size": 5}, DECLARED)
    assert chosen == {"rate": 0.1, "size": 5.0, "share": 0.1}, "outside of the range it is tuned in"
    assert all(type(value) is float for value in complete({"size": 5}, DECLARED).values()), "for equal keys"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rates": 1}, "there is no setting 'rates'; there are rate, size, share; is rate meant?"),
        ({"momentum": 1}, "there is no setting 'momentum'; there are rate, size, share$"),
        ({"rate": -0.1}, "rate is -0.1; .* at least 0"),
        ({"rate": math.nan}, "rate is nan"),
        ({"rate": math.inf}, "rate is inf"),
        ({"size": 0}, "size is 0; .* at least 1"),
        ({"share": 1.5}, "share is 1.5; it must be a finite number of at least 0 and at most 1"),
        ({"size": 2.5}, "size is 2.5; it must be a whole number"),
    ],
)
def test_a_wrong_choice_is_refused_in_one_line(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message) as told:
        complete(settings, DECLARED)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"low": 1.0, "high": 1.0},
        {"low": 0.0, "high": 1.0},
        {"low": -1.0, "high": 1.0, "scale": "linear"},
        {"low": 0.1, "high": 3.0, "most": 2.0},
        {"low": 0.1, "high": 0.2, "most": 0.4},
        {"low": 0.1, "high": 1.0, "default": -1.0},
        {"low": 1, "high": 9, "default": 1.5, "scale": "whole"},
    ],
)
def test_a_declaration_that_cannot_be_tuned_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="own"):
        Setting(**{"name": "own", "default": 0.5, **fields})
