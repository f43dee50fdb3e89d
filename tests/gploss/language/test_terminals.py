"""Terminals are checked when they are declared, and can be taken back without a trace."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Iterator

import numpy as np
import pytest

from gploss.compute.program import Program
from gploss.language.expression import Expression, ExpressionError
from gploss.language.formula import FormulaError
from gploss.language.grammar import Grammar, GrammarError
from gploss.language.operators import OPERATORS, register_operator, unary
from gploss.language.terminals import BUILT_IN, TERMINALS, Terminal, TerminalError, register_terminal, terminal
from gploss.screening.screening import screen
from gploss.tasks import Input, Task
from gploss.tasks.pointwise import POINTWISE

TILT = terminal("tilt", "score * score * shift", ("score", "shift"), {"score": "2 * score * shift"})
PROBES = (0.5, -1.0, 2.0, 1.5)


@pytest.fixture(autouse=True)
def _leave_nothing_behind() -> Iterator[None]:
    before = TERMINALS.names()
    yield
    for name in set(TERMINALS) - set(before):
        TERMINALS.unregister(name)
    assert TERMINALS.names() == before


@pytest.fixture
def few_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table that compiles in a moment."""
    monkeypatch.setattr(OPERATORS, "_entries", {name: OPERATORS[name] for name in ("add", "mul", "neg")})


def tilted() -> Task:
    inputs = (Input("score", PROBES, differentiable=True), Input("shift", PROBES[::-1], altered=PROBES))
    return Task("tilted", inputs, ("tilt",), ("tilt", "1"), metric="auc")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (terminal("bad", "score * score", ("score",), {"score": "score"}), r"d/dscore is .* at \{'score': .*\}"),
        (terminal("bad", "exp(score)", ("score",), {"score": "value + 1e-5"}), "but 'value \\+ 1e-5' gives"),
        (terminal("bad", "score * shift", ("score", "shift"), {"score": "shift", "shift": "shift"}), "d/dshift is"),
        (terminal("bad", "log(shift)", ("shift",)), r"not finite at \{'shift': -.*\}; guard it with EPS"),
        (terminal("bad", "2", ("shift",)), "'2' uses no shift"),
        (terminal("bad", "1 * shift", ("shift",), {"score": "1"}), "derivative by 'score', which is none of its"),
    ],
)
def test_a_terminal_that_is_not_what_it_declares(row: Terminal, message: str) -> None:
    with pytest.raises(TerminalError, match=message) as caught:
        register_terminal(row)
    assert "terminal 'bad'" in str(caught.value) and "\n" not in str(caught.value)
    assert "bad" not in TERMINALS


@pytest.mark.parametrize("name", ["", "Tilt", "1tilt", "ti lt", "lambda", "t1", "clamped", "sub", "div"])
def test_names_that_an_expression_cannot_hold(name: str) -> None:
    with pytest.raises(TerminalError, match=re.escape(repr(name))):
        register_terminal(terminal(name, "1 * shift", ("shift",)))


def test_terminals_and_operators_share_no_names() -> None:
    with pytest.raises(ValueError, match="'exp' is that of a known operator"):
        register_terminal(terminal("exp", "1 * shift", ("shift",)))
    with pytest.raises(ValueError, match="'label' is that of a known terminal"):
        register_operator(unary("label", "x", "1"))
    with pytest.raises(ValueError, match="'label' is taken by another terminal"):
        register_terminal(terminal("label", "2 * shift", ("shift",)))


def test_a_formula_outside_of_the_language() -> None:
    with pytest.raises(FormulaError, match="'count' at column 1 is not allowed"):
        terminal("rarity", "count + 1", ("score",))


def test_a_terminal_that_was_taken_back_is_unknown_everywhere() -> None:
    register_terminal(TILT)
    task = tilted()
    loss = Expression.parse("tilt + 1")
    assert loss.latex() == r"\mathrm{tilt} + 1" and "tilt" in Grammar.standard(task).terminals
    TERMINALS.unregister("tilt")
    with pytest.raises(ExpressionError, match="unknown name 'tilt'"):
        Expression.parse("tilt + 1")
    with pytest.raises(GrammarError, match="'tilt' is neither"):
        Grammar.standard(task)
    with pytest.raises(LookupError, match="no terminal is named 'tilt'"):
        Program.compile([loss], task)


def test_a_changed_terminal_never_runs_a_stale_kernel(few_operators: None) -> None:
    register_terminal(TILT)
    points = {"score": np.array([1.0, 3.0]), "shift": np.array([2.0, -1.0])}
    task, expression = tilted(), Expression.parse("tilt + tilt")
    before = Program.compile([expression], task)
    np.testing.assert_array_equal(before.losses(points)[0], [[4.0, -18.0]])
    grammar, fingerprint = Grammar.standard(task).content_hash, screen([expression], task).fingerprints
    TERMINALS.unregister("tilt")
    register_terminal(terminal("tilt", "3 * score + shift", ("score", "shift"), {"score": "3"}))
    after = Program.compile([Expression.parse("tilt + tilt")], task)
    losses, gradients = after.losses(points)
    np.testing.assert_array_equal(losses, [[10.0, 16.0]])
    np.testing.assert_array_equal(gradients["score"], [[6.0, 6.0]])
    assert before.texts != after.texts and "3 * score + shift" in after.texts[0]
    assert screen([expression], task).fingerprints != fingerprint
    assert Grammar.standard(task).content_hash != grammar
    np.testing.assert_array_equal(before.losses(points)[0], [[4.0, -18.0]])  # it stays what it was compiled from
    copy = pickle.loads(pickle.dumps(before))  # noqa: S301 - our own bytes
    np.testing.assert_array_equal(copy.losses(points)[0], [[4.0, -18.0]])


def test_a_changed_derivative_changes_the_text_in_the_cache() -> None:
    register_terminal(TILT)
    text = Program.compile([Expression.parse("tilt + 1")], tilted()).texts[0]
    TERMINALS.unregister("tilt")
    register_terminal(terminal("tilt", TILT.value.text, ("score", "shift"), {"score": "shift * score * 2"}))
    assert Program.compile([Expression.parse("tilt + 1")], tilted()).texts[0] != text


def test_a_built_in_terminal_is_spelt_out_where_somebody_changed_it() -> None:
    expression = Expression.parse("label * logit")
    label = TERMINALS["label"]
    assert label in BUILT_IN
    assert Program.compile([expression], POINTWISE).texts == [str(expression)]
    TERMINALS.unregister("label")
    try:
        register_terminal(terminal("label", "2 * label", ("label",)))
        assert Program.compile([expression], POINTWISE).texts[0].startswith(f"{expression} where ")
    finally:
        TERMINALS.unregister("label")
        TERMINALS.register("label", label)
        TERMINALS._entries = {name: TERMINALS[name] for name in POINTWISE.terminals}


def test_the_description_is_json_and_holds_every_formula() -> None:
    described = json.loads(json.dumps(TILT.describe()))
    assert described == {"name": "tilt", "value": TILT.value.text, "derivatives": {"score": "2 * score * shift"}}
