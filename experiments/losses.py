"""Which losses are known by name, with their formulas and sources."""

from __future__ import annotations

import pandas as pd

from experiments.command.configuration import Configuration
from experiments.command.registry import command
from gploss.report.page import Page, Section, Table
from gploss.tasks import TASKS


class Losses(Configuration):
    """Nothing to choose."""


@command("losses", Losses)
def run(settings: Losses) -> Page:
    """List the losses that are known by name, with formula and source."""
    sections = [
        Section(
            f"Losses of the task {name}",
            [
                Table(
                    pd.DataFrame(
                        [
                            {"loss": loss.name, "source": loss.source, "formula": loss.expression.readable()}
                            for _, loss in task.losses.items()
                        ]
                    )
                )
            ],
        )
        for name, task in TASKS.items()
    ]
    return Page("Known losses", "", sections)
