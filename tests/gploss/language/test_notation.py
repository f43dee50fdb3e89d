"""Formulas as people write them: shorter, and the same loss when they are read back."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gploss.language.expression import Expression
from gploss.language.operators import OPERATORS, register_operator, unary
from gploss.language.parsing import MAX_DEPTH, ParseError
from gploss.language.terminals import aliases
from gploss.screening.screening import screen
from gploss.tasks.pointwise import LOSSES
from tests import reference
from tests.strategies import GRAMMARS, any_expressions, random_expressions

parse = Expression.parse

NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?:e[+-]?\d+)?")


@pytest.mark.parametrize("name", [*GRAMMARS, "losses"])
def test_what_is_shown_is_read_back_as_the_same_loss(name: str) -> None:
    known = [loss.expression for _, loss in LOSSES.items()]
    losses = known if name == "losses" else random_expressions(7, 400, GRAMMARS[name])
    shown = [parse(loss.readable(digits=None)) for loss in losses]
    there, here = screen(losses, scale_free=False), screen(shown, scale_free=False)
    assert here.reasons == there.reasons
    same = [
        reason is not None or one == other
        for reason, one, other in zip(here.reasons, here.fingerprints, there.fingerprints, strict=True)
    ]
    assert all(same)
    assert here.reasons.count(None) >= len(known) - 1


@given(any_expressions(), st.integers(0, 2**31))
@settings(max_examples=150, deadline=None)
def test_value_and_gradient_of_what_is_shown(expression: Expression, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, labels = rng.normal(0, 2, 40), rng.integers(0, 2, 40).astype(float)
    own = reference.evaluate(expression, scores, labels)
    shown = reference.evaluate(parse(expression.readable(digits=None)), scores, labels)
    calm = own.steady & shown.steady & (own.largest < 1e15)
    np.testing.assert_allclose(shown.losses[calm], own.losses[calm], rtol=1e-9, atol=0)
    np.testing.assert_allclose(shown.gradients[calm], own.gradients[calm], rtol=1e-9, atol=0)


def numbers_of(text: str, change: Callable[[float], str]) -> str:
    return NUMBER.sub(lambda match: change(float(match[0])), text)


def test_numbers_are_rounded_and_nothing_else_is_changed() -> None:
    drawn = random_expressions(7, 800, GRAMMARS["standard"])
    losses = [parse(numbers_of(str(loss), lambda number: repr(number * 1.0123456))) for loss in drawn]
    rounded = [parse(numbers_of(loss.readable(digits=None), "{:.3g}".format)) for loss in losses]
    there, here = (
        screen(rounded, scale_free=False),
        screen([parse(loss.readable()) for loss in losses], scale_free=False),
    )
    assert here.reasons == there.reasons
    same = [
        reason is None and one == other
        for reason, one, other in zip(here.reasons, here.fingerprints, there.fingerprints, strict=True)
    ]
    assert sum(same) == here.reasons.count(None) > 150


@given(any_expressions())
def test_no_number_has_more_than_three_digits(expression: Expression) -> None:
    for number in map(float, NUMBER.findall(expression.readable())):
        assert float(f"{number:.3g}") in (number, np.inf)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("add(label, neg(pred))", "y - sigmoid(s)"),
        ("add(neg(label), pred)", "sigmoid(s) - y"),
        ("add(neg(label), neg(pred))", "-(y + sigmoid(s))"),
        ("neg(add(label, neg(pred)))", "sigmoid(s) - y"),
        ("add(-2, logit)", "s - 2"),
        ("neg(add(-2, logit))", "2 - s"),
        ("label - (logit - 1)", "1 - s + y"),
        ("add(label, add(logit, pred))", "s + sigmoid(s) + y"),
        ("add(add(label, logit), add(logit, pred))", "y + s + (s + sigmoid(s))"),
        ("mul(pred, inv(label))", "sigmoid(s) / y"),
        ("mul(inv(label), inv(logit))", "1 / y / s"),
        ("inv(label * logit)", "1 / (y * s)"),
        ("label / (logit / pred)", "y / (s / sigmoid(s))"),
        ("label * (logit * pred)", "s * sigmoid(s) * y"),
        ("mul(label, -2)", "-2 * y"),
        ("mul(neg(label), neg(logit))", "y * s"),
        ("mul(neg(label), logit)", "-y * s"),
        ("mul(label, add(logit, 1))", "y * (s + 1)"),
        ("square(label - pred)", "(y - sigmoid(s))**2"),
        ("square(square(label))", "(y**2)**2"),
        ("square(neg(logit))", "s**2"),
        ("neg(square(logit))", "-s**2"),
        ("mul(logit, logit)", "s**2"),
        ("add(logit, logit)", "2 * s"),
        ("abs(neg(logit))", "abs(s)"),
        ("tanh(neg(logit))", "-tanh(s)"),
        ("log(neg(logit))", "log(-s)"),
        ("max(logit, logit)", "s"),
        # numbers
        ("mul(1, identity(add(0, logit)))", "s"),
        ("mul(2, mul(logit, 3))", "6 * s"),
        ("add(0.5, add(logit, 0.25))", "0.75 + s"),
        ("mul(inv(3), logit)", "0.333 * s"),
        ("mul(0.99999, logit)", "s"),
        ("add(logit, 12345678)", "s + 12300000"),
        ("add(logit, 1e-6)", "s + 1e-6"),
        ("mul(0.00012345, logit)", "0.000123 * s"),
        ("mul(6.02e23, logit)", "6.02e23 * s"),
        ("exp(-100)", "exp(-100)"),  # not even float32's smallest number
        ("mul(0, logit)", "0 * s"),
        # names
        ("t=0.23456; logit / t + t", "t = 0.235; s / t + t"),
        ("margin=1; relu(margin - logit)", "margin = 1; relu(margin - s)"),
        ("mul(t=1, logit)", "t = 1; t * s"),
        ("p=2; pred * log(pred) + p", "p = 2; t1 = sigmoid(s); t1 * log(t1) + p"),
        ("pred * log(pred)", "p = sigmoid(s); p * log(p)"),
        ("(1 - logit) * log(1 - logit)", "(1 - s) * log(1 - s)"),
        (
            "a = exp(logit) - 20 * label; a * log(a) + logit / a",
            "t1 = exp(s) - 20 * y; t1 * log(t1) + s / t1",
        ),
        # nothing is left out that the clamp would notice
        ("clamped(add(label, neg(pred)))", "clamped(y - pred)"),
        ("clamped(neg(2) * label)", "clamped(neg(2) * y)"),
        ("clamped(label + neg(2))", "clamped(y - 2)"),
        ("clamped(neg(neg(label)))", "clamped(-(-y))"),
        ("clamped(neg(label * pred))", "clamped(-(y * pred))"),
        ("clamped(mul(neg(label), pred))", "clamped((-y) * pred)"),
        ("clamped(mul(2, mul(3, label)))", "clamped(3 * y * 2)"),
        ("clamped(mul(1, square(label)))", "clamped(y**2)"),
        ("clamped(mul(1, label))", "clamped(1 * y)"),
        (
            "clamped(t=2; a = label + t; a * log(a + pred) - 2 * log(a + pred))",
            "clamped(t = 2; t1 = log(y + t + pred); (y + t) * t1 - 2 * t1)",
        ),
    ],
)
def test_what_people_see(text: str, shown: str) -> None:
    assert parse(text).readable() == shown
    parse(shown)


def test_the_hand_made_losses_read_like_those_of_their_papers() -> None:
    assert LOSSES["bce"].expression.readable() == "relu(s) + log(1 + exp(-abs(s))) - y * s"
    assert LOSSES["hinge"].expression.readable() == "relu(1 - (2 * y - 1) * s)"
    assert (
        LOSSES["maxr"].expression.readable()
        == "p = sigmoid(s); max((y + 1e-6) / (p + 1e-12), (p + 1e-6) / (y + 1e-12))"
    )


def test_names_that_people_write_are_read() -> None:
    assert aliases() == {"y": "label", "s": "logit"}
    assert parse("(y - sigmoid(s)) ** 2 + s**2") is parse("square(label - sigmoid(logit)) + square(logit)")
    assert parse("s = 2 * pred; s + y") is parse("2 * pred + label")  # a part of one's own
    for text in ("s=2; s * pred", "mul(y=2, pred)"):
        with pytest.raises(ParseError, match=r"'[sy]' is no name of a constant"):
            parse(text)
    for text in ("logit ** 3", "logit ** label", "2 ** -logit", "logit ** True"):
        with pytest.raises(ParseError, match="is not allowed here"):
            parse(text)


def test_a_name_that_means_something_else_is_not_written() -> None:
    loss = parse("logit * pred")
    register_operator(unary("s", "x * x * x", "3 * x * x"))
    try:
        assert loss.readable() == "logit * pred"
        assert parse(loss.readable()) is loss
        assert parse("pred / s(label)").readable() == "pred / s(y)"
    finally:
        OPERATORS.unregister("s")
    assert loss.readable() == "s * sigmoid(s)"


@pytest.mark.parametrize("operator", ["neg", "mul", "max", "inv", "add", "exp", "square"])
@pytest.mark.parametrize("semantics", ["plain", "clamped"])
@pytest.mark.parametrize("length", [MAX_DEPTH // 2, MAX_DEPTH // 2 + 1, MAX_DEPTH])
def test_the_length_grows_with_the_nodes_alone(operator: str, semantics: str, length: int) -> None:
    node = parse("label + 2 * logit")
    for _ in range(length - 2):
        node = Expression.apply(operator, *[node] * OPERATORS[operator].arity)
    loss = node.with_semantics("clamped" if semantics == "clamped" else "plain")
    assert len(loss.readable()) < 40 * length
    assert len(loss.latex()) < 150 * length
    parse(loss.readable())


def test_parts_that_alternate_do_not_unfold() -> None:
    text = "a0 = exp(logit); " + "".join(f"a{i + 1} = a{i} * a{i} - a{i} / (a{i} + label); " for i in range(15))
    loss = parse(text + "a15")
    assert loss.tree_size > 10**9
    assert len(loss.readable()) < 1_000
    assert len(loss.latex()) < 3_000
    assert parse(loss.readable(digits=None)).tree_size > 10**9


# ------------------------------------------------------------------------------------------------------- LaTeX


def unescaped(text: str, brace: str) -> int:
    return len(re.findall(rf"(?<!\\){re.escape(brace)}", text))


@given(any_expressions(most_steps=20))
def test_latex_is_balanced(expression: Expression) -> None:
    text = expression.latex()
    assert unescaped(text, "{") == unescaped(text, "}")
    assert text.count(r"\left") == text.count(r"\right")
    for open_, close in (("(", ")"), ("[", "]")):
        assert text.count(rf"\left{open_}") == text.count(rf"\right{close}")
    assert "$" not in text
    assert ("clamped" in text) == (expression.semantics == "clamped")


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("label - pred", r"y - \hat{y}"),
        ("label - (pred - 1)", r"1 - \hat{y} + y"),
        ("label - (pred + logit)", r"y - \left(\hat{y} + s\right)"),
        ("label * (pred + 1)", r"y \cdot \left(\hat{y} + 1\right)"),
        ("label * pred + 1", r"y \cdot \hat{y} + 1"),
        ("-(label + pred)", r"-\left(y + \hat{y}\right)"),
        ("-(label * pred)", r"-y \cdot \hat{y}"),
        ("label * -2", r"-2 \cdot y"),
        ("label + -2", r"y - 2"),
        ("square(label - pred)", r"\left(y - \hat{y}\right)^2"),
        ("square(square(logit))", r"\left(s^2\right)^2"),
        ("square(exp(-logit))", r"\left(e^{-s}\right)^2"),
        ("label / pred", r"\frac{y}{\hat{y}}"),
        ("(label + 1) / (pred - 1) * logit", r"\frac{y + 1}{\hat{y} - 1} \cdot s"),
        ("square(label / pred)", r"\left(\frac{y}{\hat{y}}\right)^2"),
        ("inv(logit) + 1e-6", r"\frac{1}{s} + 10^{-6}"),
        ("1.5e-7 * logit", r"1.5 \cdot 10^{-7} \cdot s"),
        ("-1e-7 * exp(-1e7 * logit)", r"-10^{-7} \cdot e^{-10^{7} \cdot s}"),
        (
            "gamma=2; w_1=3; t=0.5; gamma * w_1 * t",
            r"\gamma \cdot w_{1} \cdot t,\quad \gamma = 2,\quad w_{1} = 3,\quad t = 0.5",
        ),
        ("clamped(label * pred)", r"\left[y \cdot \hat{y}\right]_{\mathrm{clamped}}"),
        ("clamped(neg(2) * pred)", r"\left[\left(-2\right) \cdot \hat{y}\right]_{\mathrm{clamped}}"),
    ],
)
def test_latex_has_the_brackets_it_needs(text: str, latex: str) -> None:
    assert parse(text).latex() == latex


def test_long_parts_that_are_shared_have_a_name_in_latex() -> None:
    part = "(label - pred) * log(abs(logit) + 1) * exp(-logit)"
    text = parse(f"a = {part}; square(a) + a").latex()
    assert text.startswith(r"t_{1}^2 + t_{1},\quad t_{1} = \left(y - \hat{y}\right) \cdot \log")


def test_every_terminal_is_written_as_something_that_means_it() -> None:
    scores, labels = np.linspace(-3, 3, 7), np.array([0, 1, 0, 1, 0, 1, 0.0])
    assert parse("weight").readable() == "weight"
    for name in ("pred", "label", "logit"):
        loss, shown = parse(name), parse(parse(name).readable())
        one, other = reference.evaluate(loss, scores, labels), reference.evaluate(shown, scores, labels)
        np.testing.assert_array_equal(one.losses, other.losses)
        np.testing.assert_array_equal(one.gradients, other.gradients)
