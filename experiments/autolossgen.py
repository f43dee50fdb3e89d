"""AutoLossGen (arXiv 2204.13160) in three phases: alternating search, validity check, effectiveness test.

    gploss autolossgen --dataset ml-100k --protocol paper --searchers rl --rounds 50 --out results/alg
    gploss autolossgen --dataset ml-100k --losses published --tests 5 --out results/seven
    gploss autolossgen --dataset ml-100k --losses my_losses.txt --out results/mine

Each phase reads what the one before it wrote to the folder: `--phases 1`, and later `--resume --phases 2,3`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from experiments.command.cli import main
from experiments.command.folder import RunFolder
from experiments.command.registry import command
from experiments.command.running import say
from experiments.paper.alternating_search import AutoLossGen, check, search, survivors
from experiments.paper.effect_test import try_losses
from experiments.paper.published import published
from experiments.parts.reading import load_problem, read_losses
from gploss.report.page import Page, Section

PUBLISHED: Final = "published"


@command("autolossgen", AutoLossGen)
def run(settings: AutoLossGen, folder: RunFolder) -> Page:
    """Search losses as AutoLossGen does, check them, and train with them from scratch."""
    problem = load_problem(settings.dataset, settings)
    say(f"data: {problem.name}; model {settings.model}, protocol {settings.protocol}")
    given = None
    if settings.losses is not None:
        given = published() if settings.losses == PUBLISHED else read_losses(Path(settings.losses))
    sentence, sections = "", []
    with folder.open({settings.dataset: problem.split.describe()}):
        if given is None and "1" in settings.phases:
            sections.append(Section("Search", search(settings, problem, folder)))
        if given is None and "2" in settings.phases:
            sections.append(Section("Validity", [check(settings, folder)]))
        if given is not None or "3" in settings.phases:
            losses = survivors(settings) if given is None else given
            sentence, parts = try_losses(settings, problem, folder, losses)
            sections.append(Section("Effectiveness", parts))
        title = f"AutoLossGen on {problem.name}: model {settings.model}, protocol {settings.protocol}"
        return folder.save(Page(title, sentence, sections))


if __name__ == "__main__":
    sys.exit(main(["autolossgen", *sys.argv[1:]]))
