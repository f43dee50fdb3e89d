"""One example, one score, one label: click or no click, liked or not. All that names the label is here."""

from __future__ import annotations

from statistics import NormalDist
from typing import Final

import numpy as np
import numpy.typing as npt

from gploss.language.expression import Expression
from gploss.language.terminals import BUILT_IN, register_terminal, terminal
from gploss.registry import Registry
from gploss.tasks import TASKS, Gradients, Input, NamedLoss, Task

for _row in (
    terminal("pred", "sigmoid(score)", ("score",), {"score": "value * (1 - value)"}, r"\hat{y}", "sigmoid(s)"),
    terminal("label", "label", ("label",), latex="y", written="y"),
    terminal("logit", "score", ("score",), {"score": "1"}, "s", "s"),
    terminal("weight", "weight", ("weight",), latex="w", written="w"),
):
    BUILT_IN.append(register_terminal(_row))

#: What AutoLossGen's own grammar draws from (arXiv 2204.13160, section 3.2).
PAPER_LEAVES: Final = ("pred", "label", "1")

#: AutoLossGen's validity check: 1,000 predictions, two labels, and how many of the 2,000 signs must be right.
DIRECTION_POINTS: Final = 1_000
DIRECTION_NEEDED: Final = 1_200
_DIRECTION_SLOPE: Final = 1e-6


def right_directions(gradients: Gradients) -> npt.NDArray[np.int64]:
    """Count the points at which a loss pulls the prediction towards the label.

    Source: AutoLossGen (arXiv 2204.13160), section 3.4: at 1,000 points in (0, 1) the loss must fall with pred
    where the label is 1, and rise where it is 0; a valid loss does so in more than 1,200 of the 2,000 cases.

    Args:
        gradients: of R losses.

    Returns:
        (R,) counts between 0 and 2,000.
    """
    pred = (np.arange(DIRECTION_POINTS) + 0.5) / DIRECTION_POINTS
    scores = np.log(pred / (1 - pred))
    counts = np.int64(0)
    for label, sign in ((1.0, -1.0), (0.0, 1.0)):
        slopes = gradients({"score": scores, "label": np.full_like(scores, label)})["score"] / (pred * (1 - pred))
        counts = counts + (sign * slopes > _DIRECTION_SLOPE).sum(axis=1)
    return np.asarray(counts, np.int64)


def right_direction(gradients: Gradients) -> npt.NDArray[np.bool_]:
    """Tell which of R losses pass AutoLossGen's validity check, (R,)."""
    return np.asarray(right_directions(gradients) > DIRECTION_NEEDED)


def max_ratio(smoothing: float) -> Expression:
    """Return AutoLossGen's MaxR (arXiv 2204.13160, section 5.5): max(y/p, p/y), both smoothed."""
    up, down = _plus(smoothing)
    return Expression.parse(f"max((label + {up}) / (pred + {down}), (pred + {up}) / (label + {down}))")


def sum_ratio(smoothing: float) -> Expression:
    """Return AutoLossGen's SumR: (y + p) / (y p), smoothed."""
    up, down = _plus(smoothing)
    return Expression.parse(f"(label + pred + {up}) / (label * pred + {down})")


def log_min(smoothing: float) -> Expression:
    """Return AutoLossGen's LogMin: log(1 / min(y, p)) (min(y, p) + y + p), smoothed."""
    down = _plus(smoothing)[1]
    return Expression.parse(f"m = min(label, pred); log(1 / (m + {down})) * (m + label + pred)")


def _plus(smoothing: float) -> tuple[float, float]:
    """What to add above and below a fraction: `inv` adds 1e-6 itself, but is 0 at 0."""
    return smoothing, max(smoothing - 1e-6, 1e-12)


#: Hand-made and published losses by name.
LOSSES: Final[Registry[NamedLoss]] = Registry("loss")

_PAPER: Final = "AutoLossGen, arXiv 2204.13160, section 5.5"

for _loss in (
    NamedLoss(
        "bce",
        Expression.parse("relu(logit) + log(1 + exp(neg(abs(logit)))) - label * logit"),
        "binary cross-entropy, torch.nn.BCEWithLogitsLoss",
    ),
    NamedLoss("mse", Expression.parse("square(label - pred)"), "squared error of the prediction; Brier, 1950"),
    NamedLoss("hinge", Expression.parse("relu(1 - (2 * label - 1) * logit)"), "support vector machines"),
    NamedLoss(
        "focal",
        Expression.parse("-(label * square(1 - pred) * log(pred) + (1 - label) * square(pred) * log(1 - pred))"),
        "Lin et al., ICCV 2017, with gamma = 2",
    ),
    NamedLoss(
        "hinge_embedding",
        Expression.parse("label * relu(1 - logit) + (1 - label) * logit"),
        "torch.nn.HingeEmbeddingLoss on the score, as AutoLossGen's authors call it (unbounded at label 0)",
    ),
    NamedLoss("maxr", max_ratio(1e-6), _PAPER),
    NamedLoss("sumr", sum_ratio(1e-6), _PAPER),
    NamedLoss("logmin", log_min(1e-6), _PAPER),
):
    LOSSES.register(_loss.name, _loss)

_SCORES: Final = tuple(NormalDist(0, 1.5).inv_cdf((i + 0.5) / 64) for i in range(64))
_LABELS: Final = tuple(float((i + 1) % 2) for i in range(64))

_WEIGHTS: Final = tuple((0.25, 0.5, 1.0, 2.25)[i // 2 % 4] for i in range(64))

#: Probes: 64 scores at normal quantiles with standard deviation 1.5, ascending, with labels 1 and 0 in turn.
POINTWISE: Final = TASKS.register(
    "pointwise",
    Task(
        name="pointwise",
        inputs=(
            Input("score", _SCORES, differentiable=True),
            Input("label", _LABELS, altered=tuple(1 - label for label in _LABELS)),
            Input("weight", _WEIGHTS),
        ),
        terminals=("pred", "label", "logit", "weight"),
        leaves=("pred", "label", "1", "logit"),
        metric="auc",
        losses=LOSSES,
        direction=right_direction,
        views={
            f"the label is {label}": {"score": np.linspace(-6, 6, 241), "label": np.full(241, float(label))}
            for label in (1, 0)
        },
    ),
)
