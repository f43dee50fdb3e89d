"""What a notebook registers is known in joblib's workers, and what it registers anew is known anew."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

#: As it is typed: everything stands in __main__, and the workers have never heard of it.
NOTEBOOK = """
import warnings
import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed
from gploss import (
    POINTWISE, TASKS, Expression, ExpressionLoss, Grammar, Input, for_workers, register_operator, register_terminal,
    terminal, unary,
)
from recmodels import METRICS, PointwiseProblem, load_dataset
from recmodels.metrics import Metric

register_operator(unary("cube", "x * x * x", "3 * x * x"))
register_terminal(terminal("popularity", "log_count", inputs=("log_count",)))
TASK = POINTWISE.with_input(Input("log_count", probes=np.linspace(0, 5, 64)), "popularity")
TASKS.register(TASK.name, TASK)
METRICS.register("mine", Metric("mine", lambda own: own.scores.double().mean(-1), True))

FRAME = pd.DataFrame({"user": np.arange(80) // 8, "item": np.arange(80) % 8, "rating": np.arange(80) % 5 + 1})
PROBLEM = PointwiseProblem(load_dataset(FRAME, split="at_random"), ("mine",), task=TASK)
GRAMMAR, LOSS = Grammar.standard(TASK), Expression.parse("cube(label - pred) * popularity")


def proposals(seed):
    rng = np.random.default_rng(seed)
    return [str(GRAMMAR.sample(rng, size=4)) for _ in range(20)]


def measured(scale):
    scores = scale * torch.ones(1, len(PROBLEM.rows("validation")))
    return float(PROBLEM.judge("validation")(scores)["mine"])


def by_name(text):
    task = TASKS["pointwise+log_count"]
    assert "cube" in Grammar.standard(task).operators and "popularity" in task.terminals and "mine" in METRICS
    return value(Expression.parse(text))


def value(loss):
    score, label, count = torch.tensor([[0.5], [1.0], [2.0]])
    return float(ExpressionLoss(loss, 1.0, TASK)(score, label, log_count=count))


if __name__ == "__main__":
    workers = Parallel(n_jobs=2)
    assert workers(delayed(proposals)(seed) for seed in range(2)) == [proposals(0), proposals(1)]
    assert workers(delayed(measured)(scale) for scale in (1, 2)) == [1, 2]
    assert workers(delayed(for_workers(by_name))(str(LOSS)) for _ in range(4)) == [value(LOSS)] * 4
    before = value(LOSS)
    assert workers(delayed(value)(LOSS) for _ in range(4)) == [before] * 4
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        register_operator(unary("cube", "2 * x * x * x", "6 * x * x"))
    assert abs(value(LOSS) - 2 * before) < 1e-6
    assert workers(delayed(value)(LOSS) for _ in range(4)) == [value(LOSS)] * 4
    print("as here")
"""


def test_what_is_registered_in_a_notebook_is_known_in_workers(tmp_path: Path) -> None:
    path = tmp_path / "notebook.py"
    path.write_text(NOTEBOOK)
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=300)
    assert done.stdout.endswith("as here\n"), done.stderr
