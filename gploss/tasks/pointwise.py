"""One example, one score, one label: click or no click, liked or not. All that names the label is here."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Final

import numpy as np
import numpy.typing as npt

from gploss.language.expression import Expression
from gploss.language.terminals import BUILT_IN, TERMINALS, register_terminal, terminal
from gploss.registry import Registry
from gploss.setting import Setting
from gploss.tasks import TASKS, Gradients, Input, NamedLoss, Task

for _row in (
    terminal("pred", "sigmoid(score)", ("score",), {"score": "value * (1 - value)"}, r"\hat{y}", "sigmoid(s)"),
    terminal("label", "label", ("label",), latex="y", written="y"),
    terminal("logit", "score", ("score",), {"score": "1"}, "s", "s"),
    terminal("weight", "weight", ("weight",), latex="w"),
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


#: Hand-made and published losses by name. They are written in the logit, by softplus where there is a logarithm of
#: a probability, so that value and gradient are right however sure a model is. The exponential one overflows at
#: margins below -88 / t in float32, as it must: a member that gets there has diverged.
LOSSES: Final[Registry[NamedLoss]] = Registry("loss")

_PAPER: Final = "AutoLossGen, arXiv 2204.13160, section 5.5"

#: Begins a text: the margin, above 0 where the score has the label's sign.
_MARGIN: Final = "m = (2 * label - 1) * logit; "


def _register(name: str, formula: str | Expression, source: str, *constants: Setting) -> None:
    expression = formula if isinstance(formula, Expression) else Expression.parse(formula)
    LOSSES.register(name, NamedLoss(name, expression, source, constants))


_register(
    "bce",
    "relu(logit) + log(1 + exp(neg(abs(logit)))) - label * logit",
    "binary cross-entropy, torch.nn.BCEWithLogitsLoss",
)
_register("mse", "square(label - pred)", "squared error of the prediction; Brier, 1950")
_register("hinge", "relu(1 - (2 * label - 1) * logit)", "support vector machines")
_register(
    "focal",
    f"gamma=2; {_MARGIN} exp(-gamma * softplus(m)) * softplus(-m)",
    "Lin et al., Focal loss for dense object detection, arXiv 1708.02002, equation 4",
    Setting("gamma", 2, 0.5, 8),
)
_register(
    "hinge_embedding",
    "label * relu(1 - logit) + (1 - label) * logit",
    "torch.nn.HingeEmbeddingLoss on the score, as AutoLossGen's authors call it (unbounded at label 0)",
)
_register("maxr", max_ratio(1e-6), _PAPER)
_register("sumr", sum_ratio(1e-6), _PAPER)
_register("logmin", log_min(1e-6), _PAPER)
_register(
    "smoothed_bce",
    "epsilon=0.1; softplus(logit) - ((1 - epsilon) * label + 0.5 * epsilon) * logit",
    "label smoothing: Szegedy et al., Rethinking the Inception architecture, arXiv 1512.00567, section 7",
    Setting("epsilon", 0.1, 0.01, 0.5, most=1),
)
_register(
    "weighted_bce",
    "pos_weight=2; pos_weight * label * softplus(-logit) + (1 - label) * softplus(logit)",
    "weighted classes: King and Zeng, Logistic regression in rare events data, 2001; torch's pos_weight",
    Setting("pos_weight", 2, 0.25, 16),
)
_register(
    "offset_bce",
    "offset=1; softplus(logit - offset) - label * (logit - offset)",
    "logit adjustment: Menon et al., Long-tail learning via logit adjustment, arXiv 2007.07314, equation 10",
    Setting("offset", 1, -3, 3, "linear", least=-math.inf),
)
_register(
    "symmetric_ce",
    f"beta=4; {_MARGIN} softplus(-m) + beta * sigmoid(-m)",
    "Wang et al., Symmetric cross entropy for robust learning, arXiv 1908.06112, divided by its alpha: beta is "
    "theirs times 4 / alpha, for they take log 0 as -4",
    Setting("beta", 4, 0.5, 32),
)
_register(
    "generalized_ce",
    f"q=0.7; {_MARGIN} (1 - exp(-q * softplus(-m))) / q",
    "Zhang and Sabuncu, Generalized cross entropy loss, arXiv 1805.07836, equation 6",
    Setting("q", 0.7, 0.1, 1, most=1),
)
_register(
    "bootstrap",
    "beta=0.95; beta * (softplus(logit) - label * logit) + (1 - beta) * (softplus(logit) - pred * logit)",
    "soft bootstrapping: Reed et al., Training on noisy labels with bootstrapping, arXiv 1412.6596",
    Setting("beta", 0.95, 0.6, 1, "linear", most=1),
)
_register(
    "mae",
    "sigmoid((1 - 2 * label) * logit)",
    "absolute error of the prediction: Ghosh et al., Robust loss functions, arXiv 1712.09482",
)
_register(
    "forward_bce",
    "rho_0=0.1; rho_1=0.1; to_1 = log_positive(1 - rho_1) - log_positive(rho_0);"
    "to_0 = log_positive(rho_1) - log_positive(1 - rho_0);"
    "softplus(logit) - label * (softplus(logit + to_1) + log_positive(rho_0))"
    " - (1 - label) * (softplus(logit + to_0) + log_positive(1 - rho_0))",
    "Patrini et al., Making deep networks robust to label noise, arXiv 1609.03683, theorem 2: a share rho_0 of the "
    "negatives looks positive, rho_1 of the positives negative",
    Setting("rho_0", 0.1, 0.01, 0.4, most=0.5),
    Setting("rho_1", 0.1, 0.01, 0.4, most=0.5),
)
_register(
    "asymmetric",
    "gamma=4; margin=0.05; label * softplus(-logit) - (1 - label)"
    " * exp(gamma * log_positive(relu(pred - margin))) * log_positive(min(1, sigmoid(-logit) + margin))",
    "Ridnik et al., Asymmetric loss for multi-label classification, arXiv 2009.14119, with gamma+ = 0",
    Setting("gamma", 4, 0.5, 8),
    Setting("margin", 0.05, 0.01, 0.4, most=1),
)
_register(
    "exponential",
    "t=0.5; exp(-t * (2 * label - 1) * logit)",
    "AdaBoost's, in the log-odds: Friedman, Hastie and Tibshirani, Additive logistic regression, 2000",
    Setting("t", 0.5, 0.1, 2),
)
_register(
    "cubic",
    "margin=1; h = relu(margin - (2 * label - 1) * logit); h * square(h)",
    "cubed hinge: Janocha and Czarnecki, On loss functions for deep networks, arXiv 1702.05659, table 1",
    Setting("margin", 1, 0.25, 8),
)

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

for _registry in (TERMINALS, LOSSES, TASKS):
    _registry.protect(_registry)
