from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gploss.language.expression import Expression
from gploss.language.operators import OPERATORS
from gploss.tasks.pointwise import LOSSES
from tests import reference
from tests.pointwise import OPERATORS_HERE, compiled, run
from tests.strategies import GRAMMARS, any_expressions, random_expressions

parse = Expression.parse
Floats = npt.NDArray[np.float64]


def samples(count: int, seed: int = 0) -> tuple[Floats, Floats]:
    """Scores that float32 holds exactly, and labels: mostly 0 and 1, some soft."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count).astype(np.float64)
    labels[::7] = rng.uniform(0, 1, len(labels[::7])).astype(np.float32)
    return rng.normal(0, 1.5, count).astype(np.float32).astype(np.float64), labels


def same_bits(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> bool:
    return one.shape == other.shape and one.tobytes() == other.tobytes()


def mixed_losses() -> list[Expression]:
    """Both semantics, every operator, hand-made losses, random ones."""
    every = [
        Expression.apply(operator.name, *[parse("logit"), parse("label - pred")][: operator.arity])
        for operator in OPERATORS_HERE
    ]
    random = [expression for grammar in GRAMMARS.values() for expression in random_expressions(4, 20, grammar)]
    leaves = [parse(text) for text in ("pred", "label", "logit", "2.5", "clamped(pred)")]
    return [*every, *(loss.expression for _, loss in LOSSES.items()), *random, *leaves]


# ------------------------------------------------------------------------------------ equal to differentiation


@pytest.mark.parametrize("semantics", ["plain", "clamped"])
@pytest.mark.parametrize("name", [row.name for row in OPERATORS_HERE])
def test_every_operator_equals_automatic_differentiation(name: str, semantics: Any) -> None:
    scores, labels = samples(400)
    choices = ["logit", "pred", "1.5 * logit - label", "label * logit", "exp(exp(logit))"]
    seen = 0
    for first in choices:
        operands = [parse(first).with_semantics(semantics)]
        if OPERATORS[name].arity == 2:
            operands.append(parse("square(logit) - 0.7").with_semantics(semantics))
        expression = Expression.apply(name, *operands)
        expected = reference.evaluate(expression, scores, labels)
        (losses,), (gradients,) = run(compiled([expression]), scores, labels)
        steady = expected.steady
        seen += int(steady.sum())
        np.testing.assert_allclose(losses[steady], expected.losses[steady], rtol=1e-9, atol=0)
        np.testing.assert_allclose(gradients[steady], expected.gradients[steady], rtol=1e-9, atol=0)
    assert seen > 0.7 * len(scores) * len(choices)


@pytest.mark.parametrize("name", GRAMMARS)
def test_random_losses_equal_automatic_differentiation(name: str) -> None:
    scores, labels = samples(64, seed=1)
    expressions = random_expressions(1, 400, GRAMMARS[name])
    losses, gradients = run(compiled(expressions), scores, labels)
    seen = depending = 0
    for k, expression in enumerate(expressions):
        expected = reference.evaluate(expression, scores, labels)
        steady = expected.steady
        seen += int(steady.sum())
        depending += int((expected.gradients[steady] != 0).sum())
        message = str(expression)
        np.testing.assert_allclose(losses[k, steady], expected.losses[steady], rtol=1e-9, atol=0, err_msg=message)
        np.testing.assert_allclose(
            gradients[k, steady], expected.gradients[steady], rtol=1e-9, atol=0, err_msg=message
        )
    assert seen > 0.7 * losses.size
    assert depending > 0.2 * losses.size


@given(any_expressions(), st.integers(0, 2**31))
@settings(max_examples=150, deadline=None)
def test_any_loss_equals_automatic_differentiation(expression: Expression, seed: int) -> None:
    scores, labels = samples(16, seed)
    expected = reference.evaluate(expression, scores, labels)
    (losses,), (gradients,) = run(compiled([expression]), scores, labels)
    steady = expected.steady
    np.testing.assert_allclose(losses[steady], expected.losses[steady], rtol=1e-9, atol=0)
    np.testing.assert_allclose(gradients[steady], expected.gradients[steady], rtol=1e-9, atol=0)


def test_single_precision_is_near_double() -> None:
    scores, labels = samples(64, seed=2)
    seen = 0
    for grammar in GRAMMARS.values():
        expressions = random_expressions(2, 200, grammar)
        losses, gradients = run(compiled(expressions), scores.astype(np.float32), labels)
        assert losses.dtype == gradients.dtype == np.float32
        for k, expression in enumerate(expressions):
            exact = reference.evaluate(expression, scores, labels, disturbance=1e-6)
            calm = exact.steady & (exact.largest < 1e15)  # whose square float32 still holds
            seen += int(calm.sum())
            for found, wanted in ((losses[k], exact.losses), (gradients[k], exact.gradients)):
                np.testing.assert_allclose(
                    found[calm], wanted[calm], rtol=1e-3, atol=1e-30, err_msg=str(expression)
                )
    assert seen > 0.6 * 2 * 200 * 64


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_published_losses_at_every_score(dtype: Any) -> None:
    """A wide sweep: what training meets once a model is sure of itself, both labels."""
    scores = np.linspace(-30, 30, 241).astype(dtype)
    for label in (0.0, 1.0):
        labels = np.full(len(scores), label)
        losses, gradients = run(compiled([LOSSES["bce"].expression]), scores, labels)
        wide = scores.astype(np.float64)
        np.testing.assert_allclose(losses[0], np.logaddexp(0, wide) - label * wide, rtol=1e-5, atol=2e-6)
        np.testing.assert_allclose(gradients[0], 1 / (1 + np.exp(-wide)) - label, rtol=1e-5, atol=2e-6)


# ----------------------------------------------------------------------------------------------- ties and clamps


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("text", "score", "gradient"),
    [
        ("max(logit, 2 * label)", 2.0, 0.5),
        ("min(logit, 2 * label)", 2.0, 0.5),
        ("max(2 * label, logit)", 2.0, 0.5),
        ("max(logit, 3 * logit)", 0.0, 2.0),
        ("min(logit, 3 * logit)", 0.0, 2.0),
        ("max(logit, logit)", 1.0, 1.0),
        ("max(max(logit, logit), 0)", 0.0, 0.5),
        ("relu(logit)", 0.0, 0.5),
        ("abs(logit)", 0.0, 0.0),
        ("log(logit)", 0.0, 0.0),
        ("inv(logit)", 0.0, 0.0),
        ("sqrt(logit)", 0.0, 0.0),
    ],
)
def test_ties_are_halved_and_kinks_are_as_documented(text: str, score: float, gradient: float, dtype: Any) -> None:
    _, found = run(compiled([parse(text)]), np.array([score], dtype), np.array([1.0]))
    assert found[0, 0] == gradient


def test_clamped_values_stay_in_range_and_pass_no_gradient_outside() -> None:
    texts = ("neg(pred)", "exp(exp(logit))", "square(logit)", "add(1, neg(logit))")
    expressions = [parse(text).with_semantics("clamped") for text in texts]
    scores = np.array([-2.0, 0.0, 1.0, 3.0])
    losses, gradients = run(compiled(expressions), scores, np.ones(4))
    np.testing.assert_array_equal(losses[0], np.full(4, 1e-5))
    np.testing.assert_array_equal(gradients[0], np.zeros(4))
    np.testing.assert_allclose(losses[1], [*np.exp(np.exp(scores[:3])), 1e5])
    np.testing.assert_allclose(gradients[1], [*np.exp(scores[:3] + np.exp(scores[:3])), 0.0])
    np.testing.assert_array_equal(losses[2], [4.0, 1e-5, 1.0, 9.0])
    np.testing.assert_array_equal(gradients[2], [-4.0, 0.0, 2.0, 6.0])
    np.testing.assert_array_equal(losses[3], [3.0, 1 + 1e-5, 1 + 1e-5, 1 + 1e-5])


def test_terminals_and_numbers_are_not_clamped() -> None:
    scores = np.array([-50.0, 0.5])
    losses, gradients = run(compiled([parse("clamped(logit)"), parse("clamped(-3)")]), scores, np.ones(2))
    np.testing.assert_array_equal(losses, [[-50.0, 0.5], [-3.0, -3.0]])
    np.testing.assert_array_equal(gradients, [[1.0, 1.0], [0.0, 0.0]])


# --------------------------------------------------------------------------------------- nothing leaks, anywhere


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, 1e38, -1e30, 1e-42])
def test_a_poisoned_sample_touches_nothing_else(poison: float, dtype: Any) -> None:
    expressions = mixed_losses()
    program = compiled(expressions)
    rows = len(expressions)
    rng = np.random.default_rng(3)
    scores = rng.normal(0, 1.5, (rows, 300)).astype(dtype)
    labels = rng.integers(0, 2, (rows, 300)).astype(dtype)
    clean = run(program, scores, labels)
    keep = np.ones((rows, 300), bool)
    for row, column in (
        (0, 0),
        (7, 255),
        (20, 256),
        (rows - 1, 299),
        *zip(range(rows), range(5, 5 + rows), strict=True),
    ):
        (scores if column % 2 else labels)[row, column] = poison
        keep[row, column] = False
    for before, after in zip(clean, run(program, scores, labels), strict=True):
        assert same_bits(before[keep], after[keep])


def test_a_poisonous_loss_touches_no_other_row() -> None:
    poisonous = parse("exp(exp(exp(exp(square(logit) + 9))))  * inv(logit - logit) - 1e300 * 1e300 * logit")
    expressions = mixed_losses()
    scores, labels = samples(300)
    for dtype in (np.float32, np.float64):
        clean = run(compiled(expressions), scores.astype(dtype), labels)
        between = [part for expression in expressions for part in (expression, poisonous)]
        mixed = run(compiled(between), scores.astype(dtype), labels)
        assert not np.isfinite(mixed[0][1::2]).any()
        for before, after in zip(clean, mixed, strict=True):
            assert same_bits(before, np.ascontiguousarray(after[::2]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_grouping_of_losses_is_bit_identical(dtype: Any) -> None:
    expressions = mixed_losses()
    scores, labels = samples(300, seed=5)
    scores = scores.astype(dtype)
    whole = compiled(expressions)
    together = run(whole, scores, labels)
    rng = np.random.default_rng(6)
    order = rng.integers(0, len(expressions), 3 * len(expressions))
    for found, expected in zip(run(whole, scores, labels, order), together, strict=True):
        assert same_bits(found, expected[order])
    for found, expected in zip(run(whole, scores, labels, order[:0]), together, strict=True):
        assert found.shape == (0, 300) and expected.shape == (len(expressions), 300)
    picked = run(compiled([expressions[i] for i in order[:40]]), scores, labels)
    for found, expected in zip(picked, together, strict=True):
        assert same_bits(found, expected[order[:40]])
    for k in range(0, len(expressions), 5):
        alone = run(compiled([expressions[k]]), scores, labels)
        assert same_bits(alone[0], together[0][k : k + 1])
        assert same_bits(alone[1], together[1][k : k + 1])


def batches() -> Iterator[slice]:
    yield from (slice(0, size) for size in range(1, 601))
    yield from (
        slice(start, start + size) for start in (1, 3, 16, 255, 256, 300) for size in (1, 2, 7, 31, 64, 255, 299)
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_sample_does_not_see_its_batch(dtype: Any) -> None:
    """Compiled loops are vectorised, with scalar tails: place in the batch and its size must not show."""
    program = compiled(mixed_losses())
    rng = np.random.default_rng(8)
    scores = rng.normal(0, 2, 600).astype(dtype)
    scores[::50] = rng.choice([0.0, 30.0, -30.0, 90.0, -90.0, 1e-6], 12)
    labels = rng.integers(0, 2, 600).astype(dtype)
    losses, gradients = run(program, scores, labels)
    for part in batches():
        found = run(program, scores[part], labels[part])
        assert same_bits(found[0], np.ascontiguousarray(losses[:, part])), part
        assert same_bits(found[1], np.ascontiguousarray(gradients[:, part])), part
    order = rng.permutation(600)
    shuffled = run(program, scores[order], labels[order])
    assert same_bits(shuffled[0], np.ascontiguousarray(losses[:, order]))
    assert same_bits(shuffled[1], np.ascontiguousarray(gradients[:, order]))


# --------------------------------------------------------------------------------------------------- the interface


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scores_and_labels_broadcast_over_rows(dtype: Any) -> None:
    program = compiled(mixed_losses()[:20])
    rng = np.random.default_rng(9)
    scores = rng.normal(0, 1, (20, 50)).astype(dtype)
    labels = rng.integers(0, 2, 50).astype(dtype)
    full = run(program, scores, np.tile(labels, (20, 1)))
    for given_labels in (labels, labels[None, :], np.asfortranarray(np.tile(labels, (20, 1)))):
        for found, expected in zip(run(program, scores, given_labels), full, strict=True):
            assert same_bits(found, expected)
    strided = np.repeat(scores, 2, axis=1)[:, ::2]
    assert same_bits(run(program, strided, labels)[0], full[0])
    shared = run(program, scores[3], labels)
    tiled = run(program, np.tile(scores[3], (20, 1)), labels)
    assert same_bits(shared[0], tiled[0]) and same_bits(shared[1], tiled[1])
    assert shared[0].dtype == dtype


def test_integers_and_half_precision_are_computed_in_double() -> None:
    program = compiled([parse("square(label - pred)")])
    for scores in (np.array([0, 1]), np.array([0, 1], np.float16)):
        losses, gradients = run(program, scores, np.array([1, 0]))
        assert losses.dtype == gradients.dtype == np.float64
        assert losses[0, 0] == 0.25


def test_no_losses_and_no_samples() -> None:
    losses, gradients = run(compiled([]), np.zeros(3), np.zeros(3))
    assert losses.shape == gradients.shape == (0, 3)
    losses, gradients = run(compiled([parse("pred")]), np.zeros(0), np.zeros(0))
    assert losses.shape == gradients.shape == (1, 0)


@pytest.mark.parametrize(
    ("scores", "labels", "rows", "message"),
    [
        ((3, 5), (5,), None, r"score of shape \(3, 5\) for 2 rows"),
        ((2, 5), (4,), None, r"label of shape \(1, 4\) for 2 rows of 5 samples"),
        ((2, 5), (1,), None, "label of shape"),
        ((2, 5), (2, 4), None, "label of shape"),
        ((2, 5), (3, 5), None, "label of shape"),
        ((5,), (6,), None, "label of shape"),
        ((2, 5, 1), (5,), None, "score of shape"),
        ((5,), (5,), [2], "rows name losses 2 to 2, but there are 2"),
        ((5,), (5,), [0, -1], "rows name losses -1 to 0"),
        ((2, 5), (5,), [0, 1, 1], "score of shape"),
    ],
)
def test_shapes_that_do_not_fit(
    scores: tuple[int, ...], labels: tuple[int, ...], rows: list[int] | None, message: str
) -> None:
    program = compiled([parse("pred"), parse("label")])
    with pytest.raises(ValueError, match=message):
        run(program, np.zeros(scores), np.zeros(labels), None if rows is None else np.array(rows))


def test_a_program_goes_to_another_process() -> None:
    program = compiled(mixed_losses())
    scores, labels = samples(30)
    before = run(program, scores, labels)
    copy = pickle.loads(pickle.dumps(program))  # noqa: S301 - our own bytes
    assert copy.expressions == program.expressions
    for one, other in zip(before, run(copy, scores, labels), strict=True):
        assert same_bits(one, other)


def test_inputs_are_left_alone() -> None:
    scores, labels = samples(30)
    kept = scores.copy(), labels.copy()
    run(compiled(mixed_losses()), scores, labels)
    assert same_bits(scores, kept[0]) and same_bits(labels, kept[1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_multipliers_scale_value_and_gradient(dtype: Any) -> None:
    expressions = mixed_losses()
    scores, labels = samples(40)
    plain = compiled(expressions)
    powers = np.exp2(np.arange(len(expressions), dtype=np.float64) % 7 - 3)  # exact in floating point
    before = run(plain, scores.astype(dtype), labels)
    for scaled in (plain.scaled(powers), compiled(expressions, powers)):
        after = run(scaled, scores.astype(dtype), labels)
        for one, other in zip(before, after, strict=True):
            normal = (np.abs(one) > 1e-35) & (np.abs(one) < 1e35)
            np.testing.assert_array_equal(other[normal], (one * powers[:, None].astype(dtype))[normal])
    again = run(plain, scores.astype(dtype), labels)
    assert same_bits(again[0], before[0])
    with pytest.raises(ValueError, match=r"multipliers have shape \(3,\)"):
        plain.scaled(np.ones(3))
    with pytest.raises(ValueError, match=r"multipliers have shape \(1,\)"):
        compiled(expressions, np.ones(1))


def test_the_layout_is_as_documented() -> None:
    program = compiled([parse("square(label - 2.5 * pred)"), parse("clamped(logit)"), parse("3")])
    assert len(program) == 3
    assert program.instruction_offsets.tolist() == [0, 4, 4, 4]
    assert program.constant_offsets.tolist() == [0, 1, 1, 2]
    assert program.constants.tolist() == [2.5, 3.0]
    assert program.used.tolist() == [0b011, 0b100, 0]
    assert program.clamped.tolist() == [False, True, False]
    assert program.roots.tolist() == [8, 2, 4]
    names = [program.tables.operators[code].name for code in program.instructions[:, 0]]
    assert names == ["mul", "neg", "add", "square"]
    assert program.instructions[-1, 3] == 1  # one operand, which depends on the score
    assert program.instructions[0, 3] == 2  # 2.5 needs no derivative


def test_a_graph_that_would_unfold_to_a_billion_leaves() -> None:
    node = parse("pred")
    for _ in range(30):
        node = Expression.apply("add", node, node)
    (losses,), (gradients,) = run(compiled([node]), np.zeros(2), np.zeros(2))
    np.testing.assert_array_equal(losses, [2.0**29] * 2)
    np.testing.assert_array_equal(gradients, [2.0**28] * 2)
