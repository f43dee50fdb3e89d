from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from gploss.compute.program import Program
from gploss.language.expression import Expression
from gploss.language.grammar import Grammar
from gploss.screening import screening as module
from gploss.screening.probes import ProbeResponse, probe
from gploss.screening.screening import Reason, screen
from gploss.tasks.pointwise import DIRECTION_NEEDED, LOSSES, POINTWISE, right_directions
from tests.pointwise import compiled, run
from tests.strategies import GRAMMARS, random_expressions

parse = Expression.parse
SCORES, LABELS = (POINTWISE.probes()[name] for name in ("score", "label"))


def reason(text: str, **options: bool) -> str | None:
    (found,) = screen([parse(text)], **options).reasons
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("square(label - pred)", None),
        ("exp(exp(exp(exp(1 + logit + label))))", Reason.NON_FINITE),
        ("1e308 * logit * 1e10 * label", Reason.NON_FINITE),
        # the value is infinite, the gradient is 0
        ("label * logit + max(exp(1000), pred)", Reason.NON_FINITE),
        # finite for the labels of the probes, not for the others
        ("label", Reason.ZERO_GRADIENT),
        ("2.5", Reason.ZERO_GRADIENT),
        ("label * 3", Reason.ZERO_GRADIENT),
        ("pred * 0 + label", Reason.ZERO_GRADIENT),
        ("pred - pred + label", Reason.ZERO_GRADIENT),
        ("1e-9 * label * pred", Reason.ZERO_GRADIENT),
        ("max(pred, 2) + label", Reason.ZERO_GRADIENT),
        ("clamped(neg(mul(label, pred)))", Reason.ZERO_GRADIENT),
        ("pred", Reason.NO_DEPENDENCE),
        ("pred + label", Reason.NO_DEPENDENCE),
        ("max(pred, label - 1)", Reason.NO_DEPENDENCE),
        ("logit * (1 + label * 1e-12)", Reason.NO_DEPENDENCE),
        ("square(logit) + (label - label) * logit", Reason.NO_DEPENDENCE),
    ],
)
def test_each_reason_for_rejection(text: str, expected: Reason | None) -> None:
    assert reason(text) == expected
    assert reason(text, scale_free=False) == expected


def test_the_worst_reason_is_named() -> None:
    assert reason("exp(exp(exp(9 + pred)))") == Reason.NON_FINITE  # blind to the label, too
    assert reason("2 * label") == Reason.ZERO_GRADIENT


@pytest.mark.parametrize("text", ["-square(label - pred)", "pred * label", "label * logit", "square(label + pred)"])
def test_a_wrong_direction_is_a_reason_only_when_asked_for(text: str) -> None:
    assert reason(text) is None
    assert reason(text, check_direction=True) == Reason.WRONG_DIRECTION


@pytest.mark.parametrize("name", LOSSES)
def test_hand_made_losses_pass(name: str) -> None:
    screening = screen([LOSSES[name].expression], check_direction=True)
    assert screening.reasons == [None]
    assert 1e-3 < screening.scales[0] < 1e7


def directions(*texts: str, rows: Sequence[int] | None = None) -> list[int]:
    program = compiled([parse(text) for text in texts])
    index = None if rows is None else np.array(rows, np.int64)
    return [int(count) for count in right_directions(lambda points: program.losses(points, index)[1])]


def test_directions_are_counted_as_in_the_paper() -> None:
    bce = str(LOSSES["bce"].expression)
    assert directions(bce, f"neg({bce})", "square(label - pred)", "neg(pred) * label") == [2000, 0, 2000, 1000]
    assert directions("label - pred", "pred", "2", "label") == [1000, 1000, 0, 0]
    # right where pred lies on the wrong side of a half only
    assert directions("square(max(label - pred, 0.5))") == [500]
    assert directions("abs(label - pred) * (pred - 0.25)")[0] not in (0, 2000)


def test_more_than_1200_right_directions_are_needed() -> None:
    # for label 1: 1000 right; for label 0: right above the threshold
    exactly, one_more = (
        "max(pred, 0.8) * (1 - label) - pred * label",
        "max(pred, 0.799) * (1 - label) - pred * label",
    )
    assert directions(exactly, one_more) == [DIRECTION_NEEDED, DIRECTION_NEEDED + 1]
    assert reason(exactly, check_direction=True) == Reason.WRONG_DIRECTION
    assert reason(one_more, check_direction=True) is None


def test_directions_of_chosen_rows() -> None:
    texts = (str(LOSSES["bce"].expression), "neg(square(label - pred))", str(LOSSES["mse"].expression))
    assert directions(*texts, rows=[2, 1, 1]) == [2000, 0, 0]
    assert directions(*texts, rows=[]) == []


def mean_slope(program: Program) -> npt.NDArray[np.float64]:
    return np.asarray(np.abs(run(program, SCORES, LABELS)[1]).mean(axis=1))


def test_scale_free_losses_have_a_mean_gradient_of_one() -> None:
    expressions = [loss.expression for _, loss in LOSSES.items()]
    expressions += [
        expression for grammar in GRAMMARS.values() for expression in random_expressions(3, 300, grammar)
    ]
    screening = screen(expressions)
    sound = np.array([found is None for found in screening.reasons])
    assert sound.sum() > 100
    np.testing.assert_allclose(mean_slope(screening.losses)[sound], 1, rtol=1e-12)
    np.testing.assert_allclose(mean_slope(compiled(expressions))[sound], screening.scales[sound], rtol=1e-12)
    as_written = screen(expressions, scale_free=False)
    np.testing.assert_array_equal(as_written.losses.multipliers, 1.0)
    np.testing.assert_array_equal(as_written.scales, screening.scales)
    assert as_written.reasons == screening.reasons
    assert np.isfinite(screening.losses.multipliers).all()


def test_a_loss_is_screened_the_same_in_any_company() -> None:
    expressions = [
        *random_expressions(9, 200, Grammar.standard()),
        parse("exp(exp(exp(9 + logit)))"),
        parse("label"),
    ]
    together = screen(expressions, check_direction=True)
    for k in range(0, len(expressions), 9):
        alone = screen([expressions[k]], check_direction=True)
        assert alone.reasons[0] == together.reasons[k]
        assert alone.fingerprints[0] == together.fingerprints[k]
        np.testing.assert_array_equal(alone.scales[0], together.scales[k])
        assert alone.losses.multipliers[0] == together.losses.multipliers[k]


def test_nothing_to_screen() -> None:
    screening = screen([], check_direction=True)
    assert screening.reasons == screening.fingerprints == []
    assert len(screening.losses) == len(screening.scales) == 0


def test_the_flipped_labels_count() -> None:
    """An infinity, and an effect of the label, are found wherever they are."""
    response = probe(compiled([LOSSES["mse"].expression]))
    assert response.losses.shape == (1, 128)
    assert response.gradients.shape == response.altered_gradients["label"].shape == (1, 64)
    pred = 1 / (1 + np.exp(-SCORES))
    np.testing.assert_allclose(response.losses[0, :64], (LABELS - pred) ** 2, rtol=1e-12)
    np.testing.assert_allclose(response.losses[0, 64:], (1 - LABELS - pred) ** 2, rtol=1e-12)
    np.testing.assert_allclose(response.gradients[0], 2 * (pred - LABELS) * pred * (1 - pred), rtol=1e-12)
    np.testing.assert_allclose(
        response.altered_gradients["label"][0], 2 * (pred - 1 + LABELS) * pred * (1 - pred), rtol=1e-12
    )
    np.testing.assert_allclose(response.scales, np.abs(response.gradients).mean(axis=1), rtol=1e-12)
    assert SCORES[LABELS == 0].max() == SCORES[-1]
    between = (SCORES[-1] + SCORES[-2]) / 2
    # overflows at the highest score under label 1, which only the flipped labels show
    text = f"square(label - pred) + exp(label * 1000000 * relu(logit - {between}))"
    response = probe(compiled([parse(text)]))
    assert np.isfinite(response.losses[0, :64]).all() and np.isfinite(response.gradients).all()
    assert reason(text) == Reason.NON_FINITE


def test_probes_are_what_they_are_said_to_be() -> None:
    assert SCORES.shape == LABELS.shape == (64,)
    assert (np.diff(SCORES) > 0).all()
    np.testing.assert_allclose(SCORES, -SCORES[::-1], atol=1e-12)
    assert 1.4 < SCORES.std() < 1.5
    assert LABELS.sum() == 32
    assert set(LABELS) == {0.0, 1.0}
    assert (LABELS[1:] != LABELS[:-1]).all()


def test_a_gradient_of_a_hundred_millionth_is_the_smallest_to_learn_from() -> None:
    (scale,) = screen([parse("label * pred")], scale_free=False).scales
    for factor, expected in ((1.001, None), (0.999, Reason.ZERO_GRADIENT)):
        assert reason(f"{float(factor * 1e-8 / scale)!r} * label * pred") == expected


def test_an_effect_of_a_thousand_millionth_of_the_scale_is_one() -> None:
    for effect, expected in ((2e-9, None), (0.5e-9, Reason.NO_DEPENDENCE)):
        assert reason(f"logit * (1 + {effect} * label)") == expected
        assert reason(f"1000 * logit * (1 + {effect} * label)") == expected


def judged(
    monkeypatch: pytest.MonkeyPatch, gradients: list[float], altered: list[float], scale: float | None = None
) -> str | None:
    """Return why a loss is rejected that has these gradients at the probes, before and after labels are turned."""
    own, other = np.array([gradients]), np.array([altered])
    scales = np.abs(own).mean(axis=1) if scale is None else np.array([scale])
    response = ProbeResponse(np.zeros((1, 4)), own, {"label": other}, scales)
    with monkeypatch.context() as patch:
        patch.setattr(module, "probe", lambda losses: response)
        return screen([parse("label * pred")]).texts[0]


def test_thresholds_belong_to_what_passes_and_to_what_is_blind(monkeypatch: pytest.MonkeyPatch) -> None:
    assert judged(monkeypatch, [1e-8, 1e-8], [0.0, 0.0]) is None
    assert judged(monkeypatch, [1e-8, 1e-8], [0.0, 0.0], scale=np.nextafter(1e-8, 0)) == "zero gradient"
    assert judged(monkeypatch, [0.0, 2.0], [2e-9, 2.0], scale=2.0) == "no dependence on label"
    assert judged(monkeypatch, [0.0, 2.0], [np.nextafter(2e-9, 1), 2.0], scale=2.0) is None


def test_one_probe_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    assert judged(monkeypatch, [1.0, 1.0], [1.0, 1.5]) is None
    assert (
        judged(monkeypatch, [1.0, 1.0], [1.0, np.inf])
        == judged(monkeypatch, [1.0, np.nan], [1.0, 0.5])
        == "non-finite"
    )
    assert judged(monkeypatch, [1.7e308, 1.7e308], [1.0, 0.5], scale=np.inf) == "non-finite"
