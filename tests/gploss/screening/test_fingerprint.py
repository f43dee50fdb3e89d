from __future__ import annotations

import os
import re
import subprocess
import sys
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from numpy.typing import ArrayLike

from gploss.language.expression import Expression
from gploss.language.grammar import Grammar
from gploss.screening.fingerprint import fingerprints
from gploss.screening.probes import PROBE_VERSION, ProbeResponse, probe
from gploss.screening.screening import screen
from gploss.tasks.pointwise import LOSSES
from tests.pointwise import compiled
from tests.strategies import any_expressions, random_expressions

parse = Expression.parse


def names(*texts: str, scale_free: bool = True) -> list[str]:
    return fingerprints(probe(compiled([parse(text) for text in texts])), scale_free=scale_free)


def test_a_fingerprint_is_a_version_and_a_hash() -> None:
    (name,) = names("square(label - pred)")
    assert re.fullmatch(rf"{PROBE_VERSION}-[0-9a-f]{{32}}", name)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("square(label - pred)", "(pred - label) * (pred - label)"),
        ("square(label - pred)", "square(pred) - 2 * label * pred + label"),
        ("square(label - pred)", "square(label - pred) + 7 * label - 3"),
        ("square(label - pred)", "abs(label - pred) * abs(label - pred)"),
        ("max(label, pred)", "-min(-label, -pred)"),
        ("relu(label - pred)", "max(label - pred, 0)"),
        ("pred", "sigmoid(logit)"),
        ("pred * label", "sigmoid(logit) * label"),
        ("tanh(logit) * label", "(2 * sigmoid(2 * logit) - 1) * label"),
        ("a = pred - label; square(a) * square(a)", "square(square(label - pred))"),
    ],
)
def test_equal_functions_have_one_fingerprint(one: str, other: str) -> None:
    for scale_free in (True, False):
        assert len(set(names(one, other, scale_free=scale_free))) == 1


@pytest.mark.parametrize("factor", ["2", "0.001", "1000000", "3.3333", "inv(7)"])
def test_multiples_are_one_where_losses_are_made_scale_free(factor: str) -> None:
    for loss in ("square(label - pred)", "label * log(pred) + pred", str(LOSSES["sumr"].expression)):
        multiple = f"mul({factor}, {loss})"
        assert len(set(names(loss, multiple))) == 1
        assert len(set(names(loss, multiple, scale_free=False))) == 2
        assert len(set(names(loss, f"neg({loss})"))) == 2  # pulls the other way


@pytest.mark.parametrize(
    "other",
    [
        "square(label - pred) + 0.001 * label * pred",
        "square(label - 1.001 * pred)",
        "square(label - pred - 0.001)",
        "abs(label - pred) * square(label - pred)",
        "-square(label - pred)",
        "square(label - pred) + 0.0001 * label * square(logit)",
    ],
)
def test_losses_that_differ_by_a_thousandth_are_two(other: str) -> None:
    for scale_free in (True, False):
        assert len(set(names("square(label - pred)", other, scale_free=scale_free))) == 2


def test_published_losses_are_all_different() -> None:
    found = dict(zip(LOSSES, screen([loss.expression for _, loss in LOSSES.items()]).fingerprints, strict=True))
    # MaxR and SumR have the same slopes: they are 1/p and 1/p + 1 where y = 1, p/eps and (p + eps)/eps where y = 0
    assert found.pop("maxr") == found["sumr"]
    assert len(set(found.values())) == len(found)
    assert found["hinge"] in names("max(1 - (label + label - 1) * logit, 0)")


def test_a_shift_or_an_exact_multiple_changes_nothing() -> None:
    expressions = random_expressions(5, 300, Grammar.standard())
    own = screen(expressions)
    sound = [k for k, reason in enumerate(own.reasons) if reason is None]
    assert len(sound) > 50
    for operator, number in (("add", 0.25), ("mul", 2), ("mul", 0.5)):
        changed = [Expression.apply(operator, Expression.leaf(number), expressions[k]) for k in sound]
        assert screen(changed).fingerprints == [own.fingerprints[k] for k in sound]


@given(any_expressions())
@settings(max_examples=60, deadline=None)
def test_every_loss_has_a_fingerprint(expression: Expression) -> None:
    response = probe(compiled([expression, expression]))
    for scale_free in (True, False):
        one, other = fingerprints(response, scale_free=scale_free)
        assert one == other


SCRIPT = """
from gploss.language.expression import Expression
from gploss.language.grammar import Grammar
from gploss.screening.screening import screen
import sys
texts = sys.stdin.read().splitlines()
expressions = [Expression.parse(text) for text in texts]
print(Grammar.paper().content_hash)
print(*screen(expressions).fingerprints, *screen(expressions, scale_free=False).fingerprints, sep="\\n")
print(*(expression.canonical() for expression in expressions), sep="\\n")
"""


def test_another_process_agrees() -> None:
    """Hash seeds, the order of interning and the company are its own; names and canonical forms are not."""
    expressions = random_expressions(2, 60, Grammar.standard()) + random_expressions(3, 60, Grammar.paper())
    texts = [str(expression) for expression in expressions]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input="\n".join(texts[::-1]),
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "12345"},
        cwd=Path(__file__).parents[3],
        timeout=300,
    )
    content_hash, *lines = done.stdout.splitlines()
    assert content_hash == Grammar.paper().content_hash
    own = [
        screen(expressions).fingerprints,
        screen(expressions, scale_free=False).fingerprints,
        [str(expression.canonical()) for expression in expressions],
    ]
    assert lines == [name for part in own for name in part[::-1]]


def test_rejected_losses_do_no_harm() -> None:
    texts = ("exp(exp(exp(9 + logit)))", "label", "1e300 * logit * label", "square(label - pred)")
    with np.errstate(all="raise"):
        assert names(*texts)[3] == names("square(label - pred)")[0]


def named(gradients: ArrayLike, scale: float = 1.0, *, scale_free: bool = True) -> str:
    """The fingerprint of one loss with these gradients at the probes."""
    row = np.atleast_2d(np.asarray(gradients, np.float64))
    response = ProbeResponse(np.zeros_like(row), row, {}, np.array([scale]))
    (name,) = fingerprints(response, scale_free=scale_free)
    return name


def hashed(*steps: int) -> str:
    """A fingerprint by its definition: a hash of whole numbers of eight bytes, of the lowest first."""
    return f"1-{blake2b(np.array(steps, '<i8').tobytes(), digest_size=16).hexdigest()}"


def test_a_fingerprint_is_a_hash_of_steps_of_a_hundred_thousandth_of_the_scale() -> None:
    assert named([1.0, -0.5, 0.0, 2.0]) == hashed(0, 100_000, -50_000, 0, 200_000)
    assert named([3.0, -1.5], 3.0) == hashed(0, 100_000, -50_000)
    assert named([3.0, -1.5], 4.0, scale_free=False) == hashed(200_000, 75_000, -37_500)
    assert named([1.0], 0.5, scale_free=False) == hashed(-100_000, 200_000)
    assert named([0.000014]) == named([0.000006]) == hashed(0, 1) and named([0.000016]) == hashed(0, 2)


def test_a_zero_has_no_sign() -> None:
    """What rounds to nothing is nothing, from above and from below."""
    assert named([1.0, -0.0]) == named([1.0, 0.0]) == hashed(0, 100_000, 0)
    assert named([1.0, -1e-9]) == named([1.0, 1e-9]) == hashed(0, 100_000, 0)
    assert named([1.0, -0.0], scale_free=False) == named([1.0, 4e-6], scale_free=False) == hashed(0, 100_000, 0)


def test_what_no_whole_number_holds_exactly_is_cut_there() -> None:
    most = 2**53
    for steps in (1.25 * most, 1.75 * most, 2.0**70, np.inf):
        assert named([steps * 1e-5, -steps * 1e-5]) == hashed(0, most, -most)
    below = named([0.75 * most * 1e-5])
    assert below not in (named([0.5 * most * 1e-5]), named([1.25 * most * 1e-5]))
    assert named([np.nan, 1.0]) == hashed(0, 0, 100_000)
