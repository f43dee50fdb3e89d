"""CONTRIBUTING's recipes work as they stand there: each in a copy of the project, with no other edit."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documents import PROJECT, blocks, run_python, sections

RECIPES = sections((PROJECT / "CONTRIBUTING.md").read_text())
PACKAGES = ("gploss", "rl", "recmodels", "experiments")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the packages and of what the tests of all searchers need."""
    for package in PACKAGES:
        shutil.copytree(PROJECT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tests").mkdir()
    for name in ("gploss/search/test_searcher.py", "synthetic.py"):
        shutil.copy(PROJECT / "tests" / name, tmp_path / "tests")
    return tmp_path


def recipe(name: str) -> str:
    (code,) = blocks(RECIPES[name], "python")
    return code


def add_file(name: str, copy: Path) -> None:
    """Do what the recipe says: its block in the file that it names."""
    found = re.search(r"A file in `([\w/]+)`, here `(\w+\.py)`", RECIPES[name])
    assert found is not None
    (copy / found[1] / found[2]).write_text(recipe(name))


def run_tests(words: str, tests: str, copy: Path) -> None:
    """Run the tests of a copy whose names hold certain words; there are several."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", words, tests]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout
    assert int(re.findall(r"(\d+) passed", done.stdout)[0]) > 1


USE_OPERATOR = """
from gploss import ExpressionLoss, Grammar, screen
import torch

loss = Grammar.standard().parse("square(label - softsign(logit))")
assert screen([loss]).reasons == [None]
score = torch.tensor([0.3, -2.0], requires_grad=True)
value = ExpressionLoss(loss, scale=1.0)(score, torch.tensor([1.0, 0.0]))
wanted = (torch.tensor([1.0, 0.0]) - torch.nn.functional.softsign(score)).square().mean()
assert torch.allclose(value, wanted)
assert "softsign" in loss.latex()
"""


def test_an_operator_in_ones_own_code(tmp_path: Path) -> None:
    run_python(recipe("An operator") + USE_OPERATOR, tmp_path)


def test_an_operator_of_gploss(copy: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(recipe("An operator"))) if isinstance(node, ast.Call)]
    (row,) = [ast.unparse(call) for call in calls if isinstance(call.func, ast.Name) and call.func.id == "unary"]
    table = copy / "gploss" / "language" / "operators.py"
    end = "\n):\n    register_operator(_row)\n"
    assert table.read_text().count(end) == 1
    table.write_text(table.read_text().replace(end, f"\n    {row},{end}"))
    run_python(USE_OPERATOR, copy, packages=copy)


USE_INPUT = """
from functools import partial

import numpy as np
from gploss import OPERATORS, Expression, ExpressionLoss, GeneticSearcher, Grammar
from recmodels import MF, PAPER, LossEvaluator, StackedTrainer, load_dataset
from recmodels.training.choice import choose_trainer

for name in set(OPERATORS) - {"add", "mul", "neg", "square"}:  # few operators compile in a moment
    OPERATORS.unregister(name)
split = load_dataset("synthetic")
loss, plain = (Expression.parse(text) for text in ("popularity * square(label - pred)", "square(label - pred)"))
model = partial(MF, embedding_size=8)
found = {}
for trainer in (choose_trainer(model, PAPER, device="cpu"), StackedTrainer(model, PAPER, device="cpu")):
    evaluator = LossEvaluator(problem(split), trainer, epochs=2)
    weighted, unweighted = evaluator.evaluate([loss, plain], {}, 2)
    assert weighted.metrics != unweighted.metrics
    found[trainer.name] = weighted.metrics["auc"]
np.testing.assert_allclose(found["fused"], found["stacked"], atol=2e-4)
result = GeneticSearcher(Grammar.standard(TASK), evaluator, seed=1).run(budget=6, progress=False)
assert any("popularity" in str(evaluation.expression) for evaluation in result.records)
assert result.best is not None and result.best.task == TASK.name
assert ExpressionLoss(loss, 1.0, TASK).arguments == ("score", "label", "log_count")
"""


def test_an_input_in_ones_own_code(tmp_path: Path) -> None:
    run_python(recipe("An input") + USE_INPUT, tmp_path)


def test_a_searcher(copy: Path) -> None:
    add_file("A searcher", copy)
    search = """
from gploss import SEARCHERS, Grammar
from tests.synthetic import SyntheticEvaluator

result = SEARCHERS["greedy"](Grammar.standard(), SyntheticEvaluator()).run(budget=100, progress=False)
assert result.best is not None and result.counts["trained"] + result.counts["diverged"] == 100
"""
    run_python(search, copy, packages=copy)
    run_tests("greedy", "tests/test_searcher.py", copy)
    run_python(EVERY_COMMAND, copy, packages=copy)


#: On data small enough that five commands search, tune and test in some seconds.
EVERY_COMMAND = """
import numpy as np
import pandas as pd
from experiments.command.cli import main

rng = np.random.default_rng(0)
pairs = rng.permutation(40 * 25)[:600]
frame = pd.DataFrame({"user": pairs // 25, "item": pairs % 25, "label": rng.integers(0, 2, 600)})
frame.to_csv("table.csv", index=False)
own = ["--searchers", "greedy", "--device", "cpu"]
data = ["--dataset", "table.csv"]
test = ["--final-epochs", "1", "--tuning-seeds", "1", "--tests", "2", "--rivals", "bce"]
rounds = ["--protocol", "standard", "--rounds", "1", "--samples", "10", "--seeds", "1"]
for name, options in {
    "compare": [*data, *test, "--budget", "4", "--seeds", "1", "--epochs", "1"],
    "improve": [*data, *test, "--budget", "4", "--seeds", "1", "--epochs", "1", "--validation-parts", "1"],
    "autolossgen": [*data, *test, *rounds],
    "transfer": ["--datasets", "table.csv", "--models", "mf", *test, "--budget", "4", "--epochs", "1"],
    "ablate": [*data, *rounds, "--epochs", "1"],
}.items():
    assert main([name, *own, *options, "--out", f"out/{name}"]) == 0, name
"""


def test_a_command(copy: Path) -> None:
    add_file("A command", copy)
    use = """
from experiments.command.cli import main

assert main(["sift", "--formulas", "300", "--out", "out"]) == 0
assert main(["sift", "--out", "out"]) == 1
assert "worth training" in open("out/summary.md").read()
"""
    listed = run_python("from experiments.command.cli import main; main(['--help'])", copy, packages=copy)
    assert re.search(r"sift +Count how many random formulas", listed)
    assert "zero gradient" in run_python(use, copy, packages=copy)


def test_a_metric(copy: Path) -> None:
    add_file("A metric", copy)
    metrics = "tests/recmodels/metrics"
    shutil.copytree(PROJECT / metrics, copy / metrics, ignore=shutil.ignore_patterns("__pycache__"))
    run_tests("balanced-accuracy", f"{metrics}/test_metrics.py", copy)
    measure = """
import torch
from recmodels.metrics import evaluate
from recmodels.metrics.targets import Targets

scores = torch.tensor([[1.0, -1.0, 1.0, -1.0, -1.0]])
found = evaluate(["balanced-accuracy"], scores, Targets([1, 1, 0, 0, 0]))
assert abs(found["balanced-accuracy"].item() - (1 / 2 + 2 / 3) / 2) < 1e-15
"""
    run_python(measure, copy, packages=copy)


def test_a_model_and_a_dataset(copy: Path) -> None:
    add_file("A model", copy)
    add_file("A dataset", copy)
    train = """
from gploss import LOSSES
from recmodels import MODELS, STANDARD, LossEvaluator, PointwiseProblem, StackedTrainer, load_dataset

split = load_dataset("two-groups")
trainer = StackedTrainer(MODELS["two-towers"], STANDARD, device="cpu")
evaluator = LossEvaluator(PointwiseProblem(split), trainer, epochs=4)
(evaluation,) = evaluator.evaluate([LOSSES["bce"].expression], {}, 1)
print(evaluation.reward)
assert evaluation.reward > 0.6
"""
    run_python(train, copy, packages=copy)
