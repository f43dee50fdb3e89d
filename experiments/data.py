"""Which datasets are known by name, with their sources and licences."""

from __future__ import annotations

import pandas as pd

from experiments.command.configuration import Configuration
from experiments.command.registry import command
from gploss.registry import discover
from gploss.report.page import Page, Section, Table
from recmodels.datasets import DATASETS


class Data(Configuration):
    """Nothing to choose."""


@command("data", Data)
def run(settings: Data) -> Page:
    """List the datasets that are known by name, with source and licence."""
    discover("recmodels.datasets")
    rows = [
        {"dataset": one.name, "licence": one.licence, "what": one.summary, "source": one.source}
        for _, one in DATASETS.items()
    ]
    return Page("Known datasets", "", [Section("Datasets", [Table(pd.DataFrame(rows))])])
