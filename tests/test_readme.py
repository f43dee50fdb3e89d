"""What README says is so: its example runs as printed, its commands and files exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from experiments.command.registry import declared, load
from gploss import Expression
from tests.documents import PROJECT, blocks, run_python

DOCUMENTS = sorted(
    str(path.relative_to(PROJECT)) for path in [*PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md")]
)
README = (PROJECT / "README.md").read_text()


def test_the_library_example_runs_as_printed(tmp_path: Path) -> None:
    (code,) = blocks(README, "python")
    output = run_python(code, tmp_path)
    best, source = output.split("\n", 1)
    formula, reward = re.fullmatch(r"(.+)  \(validation auc (0\.\d+), complexity \d+\)", best).groups()  # type: ignore[union-attr]
    assert Expression.parse(formula)
    assert float(reward) > 0.5
    compile(source, "source", "exec")
    assert "def loss(score: torch.Tensor, label: torch.Tensor)" in source


def test_the_commands_are_those_of_the_makefile() -> None:
    makefile = (PROJECT / "Makefile").read_text()
    named = set(re.findall(r"^make (\w+)", "\n".join(blocks(README, "sh")), re.MULTILINE))
    assert named == {"compare", "test"}
    for target in named | {"bench", "lint", "lock", "advisories", "clean"}:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    assert "gploss compare --out results/compare" in makefile
    assert 'pip install -c constraints.txt -e ".[dev]"' in README
    assert "pip install --require-hashes --no-deps -r requirements.lock" in README
    assert "$(PIP) --require-hashes --no-deps -r requirements.lock" in makefile
    assert '$(PIP) --no-build-isolation -c constraints.txt -e ".[dev]"' in makefile


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", (PROJECT / document).read_text()):
        if not target.startswith("http"):
            assert (PROJECT / document).parent.joinpath(target).exists(), target


def test_commands_and_options_that_are_named_exist() -> None:
    named = re.findall(r"^gploss (\w+)(.*)$", "\n".join(blocks(README, "sh")), re.MULTILINE)
    assert {name for name, _ in named} >= {"compare", "improve"}
    general = {"config", "print-config", "resume", "overwrite"}
    for name, words in named:
        for option in re.findall(r"--([a-z-]+)", words):
            assert option in {*load(name).configuration.options(), *general}, option
    (table,) = re.findall(r"^\| `gploss \.\.\.` \|.*?\n\n", README, re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"`(\w+)`", table)) == set(declared())


def test_the_example_with_columns_of_other_names(tmp_path: Path) -> None:
    (code,) = blocks(README, "py")
    given = """
from recmodels import MF as DotProduct, LossEvaluator, synthetic_ratings

names = {"user": "customer", "item": "product", "rating": "stars"}
frame = synthetic_ratings().head(5000).rename(columns=names)
"""
    share = run_python(given + code + "print(evaluator.problem.split.train.positive_share)", tmp_path)
    assert float(share) > 0.75  # of three stars and more
