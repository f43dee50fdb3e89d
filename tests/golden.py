"""What must not change unnoticed: names of losses, keys of the cache, and the numbers that training gives.

`python tests/golden.py identities tests/golden.json` writes the file that `tests/test_golden.py` compares with;
`python tests/golden.py metrics OUT.json` is what `tests/same_numbers.py` runs in two commits. A commit with another
API adapts this program and writes the same JSON: what it leaves out or renames counts as a difference.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

# Before tests/, where a program finds folders of tests that have the packages' names.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

import gploss
from gploss.language.expression import Expression
from gploss.screening.screening import screen
from gploss.search.evaluation import EvaluationKey
from gploss.tasks.pointwise import LOSSES
from recmodels.data.interactions import Interactions, Split
from recmodels.data.pointwise import PointwiseProblem
from recmodels.evaluators.evaluator import LossEvaluator
from recmodels.models.deep_model import DeepModel
from recmodels.models.mf import MF
from recmodels.training.fused.trainer import FusedTrainer
from recmodels.training.protocol import PAPER, STANDARD
from recmodels.training.stacked.trainer import StackedTrainer
from recmodels.training.trainer import Trainer

EPOCHS: Final = 3
SEED: Final = 7

NAMED: Final = ("bce", "mse", "hinge", "focal", "hinge_embedding", "maxr", "sumr", "logmin")

FORMULAS: Final = {
    "pairwise product": "-((2 * label - 1) * logit)",
    "saturated": "square(tanh(logit) + 1 - 2 * label)",
    "extremes": "max(pred, label) - min(pred, label) + 0.125 * square(logit)",
    "roots": "sqrt(abs(label - pred) + 0.01)",
    "inverse": "inv(label * pred + (1 - label) * (1 - pred) + 0.1)",
    "exponential": "exp((1 - 2 * label) * 0.5 * logit)",
    "steep": "exp(square(1.3 * logit - 3 * label)) - exp(square(1.2 * logit))",
    "twice sigmoid": "square(sigmoid(3 * pred - 1.5) - label)",
    "shared parts": "d = label - pred; s = square(d); s * log(1 + s) + 0.3 * s + abs(d * s)",
    "written long": "add(0, mul(1, identity(square(add(neg(neg(label)), neg(pred)))))) + 0.01 * abs(logit)",
    "clamped": "clamped(add(mul(add(label, 0.01), inv(pred)), mul(pred, inv(add(label, 0.1)))))",
    "clamped, shared": "clamped(m = max(pred, label); add(inv(m), square(add(m, neg(mul(pred, label))))))",
}
EXPRESSIONS: Final = {name: LOSSES[name].expression for name in NAMED} | {
    name: Expression.parse(text) for name, text in FORMULAS.items()
}

TRAINERS: Final[dict[str, Callable[..., Trainer]]] = {
    "mf fused": functools.partial(FusedTrainer, functools.partial(MF, embedding_size=8)),
    "mf stacked": functools.partial(StackedTrainer, functools.partial(MF, embedding_size=8)),
    "deep stacked": functools.partial(
        StackedTrainer, functools.partial(DeepModel, embedding_size=8, layers=(8, 4))
    ),
}

#: Fields of a key, its model's included, that depend on versions of Python and its libraries or on the processor.
FOREIGN: Final = frozenset({"environment", "code", "judged_by"})


def small_split() -> Split:
    """1,500 interactions of 60 users with 40 items in two groups, by arithmetic alone."""
    rows = np.arange(1500)
    pairs = rows * 677 % 2400
    users, items = pairs // 40, pairs % 40
    labels = (rows * 389 % 1000 < np.where(users % 2 == items % 2, 800, 300)).astype(np.float32)
    whole = Interactions(users, items, labels, 60, 40)
    return Split("golden", whole.take(rows[:1000]), whole.take(rows[1000:1250]), whole.take(rows[1250:]))


def evaluators() -> Iterator[tuple[str, LossEvaluator]]:
    """Every protocol with every trainer."""
    problem = PointwiseProblem(small_split(), ("auc", "logloss"))
    for protocol in (STANDARD, PAPER):
        for name, trainer in TRAINERS.items():
            made = trainer(protocol, device="cpu")
            yield (
                f"{protocol.name}, {name}",
                LossEvaluator(problem, made, epochs=EPOCHS, seed=SEED, recognise_duplicates=False),
            )


def identities() -> dict[str, Any]:
    """Texts and fingerprints of each loss, and each evaluator's key in the cache without what is foreign."""
    expressions = list(EXPRESSIONS.values())
    names = {free: screen(expressions, scale_free=free).fingerprints for free in (True, False)}
    losses = {
        name: {
            "text": str(expression),
            "canonical": str(expression.canonical()),
            "program": screen([expression]).losses.texts[0],
            "fingerprint": names[True][k],
            "fingerprint with scale": names[False][k],
        }
        for k, (name, expression) in enumerate(EXPRESSIONS.items())
    }
    keys = {}
    for name, evaluator in evaluators():
        fields = without_foreign(dict(evaluator.key.fields))
        keys[name] = {"fields": fields, "hash": EvaluationKey(fields).hash}
    return {"losses": losses, "keys": keys}


def without_foreign(fields: dict[str, Any]) -> dict[str, Any]:
    """Put a placeholder wherever a field depends on a library's version or on the processor."""
    stable: dict[str, Any] = {}
    for name, value in fields.items():
        inner = without_foreign(value) if isinstance(value, dict) else value
        stable[name] = f"<{name}>" if name in FOREIGN else inner
    return stable


def metrics() -> dict[str, Any]:
    """Train every loss with every evaluator: status, scale, metrics by epoch, all numbers as `float.hex`."""
    found: dict[str, Any] = {}
    for evaluator_name, evaluator in evaluators():
        evaluations = evaluator.evaluate(list(EXPRESSIONS.values()), {}, len(EXPRESSIONS))
        found[evaluator_name] = {
            name: {
                "status": str(evaluation.status),
                "scale": None if evaluation.scale is None else evaluation.scale.hex(),
                "metrics": {metric: [value.hex() for value in row] for metric, row in evaluation.metrics.items()},
            }
            for name, evaluation in zip(EXPRESSIONS, evaluations, strict=True)
        }
    return found


def write(content: dict[str, Any], path: Path) -> None:
    """Write JSON in the one format that is compared."""
    path.write_text(json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n")


def main() -> None:
    """Write what the command line asks for; where gploss comes from goes to stderr."""
    programs = {"identities": identities, "metrics": metrics}
    if len(sys.argv) != 3 or sys.argv[1] not in programs:
        sys.exit(f"usage: {sys.argv[0]} identities|metrics OUT.json")
    print(f"gploss: {Path(gploss.__file__).resolve()}", file=sys.stderr)
    torch.set_num_threads(1)
    write(programs[sys.argv[1]](), Path(sys.argv[2]))


if __name__ == "__main__":
    main()
