from __future__ import annotations

from gploss.report.formulas import readable


def test_formulas_of_tables_are_written_as_people_write_them() -> None:
    assert readable("square(add(label, neg(pred)))") == "(y - sigmoid(s))**2"
    assert readable("mul(0.123456, logit)") == "0.123 * s"


def test_what_means_nothing_here_stays_as_it_is() -> None:
    for text in ("own_operator(pred)", "", "none", "a; b"):
        assert readable(text) == text
