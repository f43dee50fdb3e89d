"""The one table of options: type, limits and meaning of each, the same in every command and configuration file.

A command's configuration has a field for each option that it takes, with a default of its own:

    class Compare(DataSettings):
        budget: Budget = 200
"""

from __future__ import annotations

import importlib
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field

from experiments.command.configuration import Configuration


def _checked(place: str) -> AfterValidator:
    """Return a validator by a registry or function, imported when it is used: what trains takes seconds."""

    def check(name: str | None) -> str | None:
        if name is None:
            return None
        module, _, attribute = place.partition(":")
        known = attrgetter(attribute)(importlib.import_module(module))
        try:
            known(name) if callable(known) else known[name]
        except (LookupError, OSError) as error:  # the latter of names that no file can have
            raise ValueError(str(error)) from error
        return name

    return AfterValidator(check)


DatasetName = Annotated[str, _checked("recmodels.datasets:find_dataset")]
ModelName = Annotated[str, _checked("experiments.parts.searching:MODELS")]
RivalText = Annotated[str, _checked("experiments.parts.reading:read_rival")]
NoiseText = Annotated[str | None, _checked("recmodels.data.noise:Flips.parse")]
SearcherName = Annotated[str, _checked("experiments.parts.searching:SEARCHERS")]

# Data and model.
Dataset = Annotated[DatasetName, Field(description="A dataset's name (see `gploss data`), or the path of a table.")]
Datasets = Annotated[tuple[DatasetName, ...], Field(min_length=1, description="Names or paths.")]
Column: TypeAlias = str | None
User = Annotated[Column, Field(description="The table's column of users, where its name is not a common one.")]
Item = Annotated[Column, Field(description="Its column of items.")]
Rating = Annotated[Column, Field(description="Its column of ratings.")]
Label = Annotated[Column, Field(description="Its column of labels 0 and 1, where it has no ratings.")]
Time = Annotated[Column, Field(description="Its column of times.")]
Weight = Annotated[Column, Field(description="Its column of how much each row counts in training.")]
PositiveFrom = Annotated[float | None, Field(description="Ratings from here on are positive; 4 where not given.")]
Separator = Annotated[
    str | None,
    Field(min_length=1, description="What separates its columns, such as ; or tab; found in the first line."),
]
NoHeader = Annotated[bool, Field(description="It has no header: columns are named 1, 2, 3, ...")]
Columns = Annotated[tuple[str, ...], Field(description="Names of all its columns, where it has no header.")]
Encoding = Annotated[str | None, Field(min_length=1, description="Its encoding; UTF-8 where not given.")]
NoQuotes = Annotated[bool, Field(description="Quotation marks in it are characters like others.")]
Decimal = Annotated[Literal[".", ","], Field(description="What stands before decimals.")]
Missing = Annotated[
    tuple[str, ...],
    Field(description="Texts that stand for a missing id; NA, NaN, null and the like where not given."),
]
Timeless = Annotated[bool, Field(description="None of its columns holds times.")]
OnUnknown = Annotated[
    Literal["error", "keep"],
    Field(description="Of a part none of whose users train knows: refuse it, or keep it."),
]
OnDuplicates = Annotated[
    Literal["error", "last"],
    Field(description="Of a user and item that meet twice: refuse them, or keep the last row."),
]
SplitBy = Annotated[
    Literal["leave_one_out", "by_time", "at_random"] | None,
    Field(description="How rows are split in three parts; as published, or leave_one_out, if not given."),
]
TrainNoise = Annotated[
    NoiseText,
    Field(description="Labels of train turned over: flip=0.2, positive=0.3, negative=0.3, or two of these."),
]
ValidationNoise = Annotated[NoiseText, Field(description="Labels of validation turned over, likewise.")]
Negatives = Annotated[
    Literal["observed", "unobserved"],
    Field(description="Negatives of train as they are, or as many items that their users have not met."),
]
Model = Annotated[ModelName, Field(description="Recommender model.")]
Models = Annotated[tuple[ModelName, ...], Field(min_length=1, description="Recommender models.")]
Protocol = Annotated[
    str,
    _checked("recmodels.training.protocol:PROTOCOLS"),
    Field(description="How models train: standard or paper."),
]

# Search.
Searchers = Annotated[
    tuple[SearcherName, ...], Field(min_length=1, description="What searches: genetic, random, rl, ...")
]
Budget = Annotated[int, Field(ge=1, description="Candidates that each search trains.")]
BudgetOrRounds = Annotated[int | None, Field(ge=1, description="Candidates that each search trains.")]
Rounds = Annotated[int, Field(ge=1, description="Rounds of an alternating search: steps of the recommender.")]
Samples = Annotated[int, Field(ge=1, description="Samples of a round.")]
Epochs = Annotated[int, Field(ge=1, description="Epochs that a candidate trains in a search.")]
Seeds = Annotated[int, Field(ge=1, description="Searches of each searcher.")]
CheckDirection = Annotated[bool, Field(description="Reject losses that fail AutoLossGen's validity check.")]
Population = Annotated[int, Field(ge=2, description="Individuals of genetic search that survive a round.")]
StartWith = Annotated[
    Path | None,
    Field(description="A text file of losses, one a line, to begin with beside the known ones."),
]
ValidationParts = Annotated[int, Field(ge=1, description="Validation parts, in search and in choice.")]
Validation = Annotated[
    Literal["drawn", "rolling"],
    Field(description="The others: drawn at random, or each user's last rows before the first part."),
]

# Choice and test.
Rivals = Annotated[
    tuple[RivalText, ...],
    Field(
        description="Hand-made losses to beat: names or formulas, separated by semicolons; by default all known.",
        json_schema_extra={"separator": ";"},
    ),
]
Contenders = Annotated[int, Field(ge=1, description="Found losses of each searcher that are tuned.")]
Finalists = Annotated[int, Field(ge=1, description="How many of them are tested.")]
TestMetric = Annotated[
    str | None,
    _checked("recmodels.metrics:METRICS"),
    Field(description="Metric of the test; --metric if not given."),
]
FinalEpochs = Annotated[int, Field(ge=1, description="Most epochs of tuning and of the final training.")]
LongEpochs = Annotated[int | None, Field(ge=1, description="Most epochs of tuning and of the final training.")]
TuningSeeds = Annotated[int, Field(ge=1, description="Seeds of each setting in tuning.")]
Tests = Annotated[int, Field(ge=2, description="Fresh seeds of the test.")]
Losses = Annotated[
    str | None, Field(description="Test these alone: a text file of losses, one a line, or `published`.")
]
Phases = Annotated[
    tuple[Literal["1", "2", "3"], ...], Field(min_length=1, description="Search, validity check, test.")
]
Survivors = Annotated[int, Field(ge=1, description="Most losses that phase 3 trains to the end.")]
Top = Annotated[int, Field(ge=1, description="How many of them are tested with fresh seeds.")]
Found = Annotated[
    tuple[Path, ...], Field(description="found.csv of other runs: losses to try, in place of searching.")
]

# The run.
Device = Annotated[
    str, _checked("recmodels.training.trainer:choose_device"), Field(description="auto, cpu, cuda, or cuda:N.")
]
Jobs = Annotated[int | None, Field(ge=1, description="Searches at the same time; as many as cores if not given.")]
Seed = Annotated[int, Field(ge=0, description="Seed of the whole experiment.")]
Metric = Annotated[
    str | None,
    _checked("recmodels.metrics:METRICS"),
    Field(description="Metric that steers; the task's own if not given."),
]
Out = Annotated[Path, Field(description="Folder of the run.")]
Quick = Annotated[bool, Field(description="Less data and fewer repetitions.")]


class FolderSettings(Configuration):
    """The folder. Every command that writes has one."""

    out: Out = Path("results")


class RunSettings(FolderSettings):
    """The run. What every training depends on."""

    seed: Seed = 0
    device: Device = "auto"
    metric: Metric = None


class TableSettings(Configuration):
    """Tables of your own. What is found or usual is taken where nothing is given."""

    user: User = None
    item: Item = None
    rating: Rating = None
    label: Label = None
    time: Time = None
    weight: Weight = None
    positive_from: PositiveFrom = None
    separator: Separator = None
    no_header: NoHeader = False
    columns: Columns = ()
    encoding: Encoding = None
    no_quotes: NoQuotes = False
    decimal: Decimal = "."
    missing: Missing = ()
    timeless: Timeless = False
    on_duplicates: OnDuplicates = "error"
    on_unknown: OnUnknown = "error"
    split: SplitBy = None


class NoiseSettings(Configuration):
    """Noise. Put into the data after they are split."""

    train_noise: TrainNoise = None
    validation_noise: ValidationNoise = None
    negatives: Negatives = "observed"


class JudgeSettings(RunSettings):
    """Test. Losses are tuned alike; the chosen ones are compared from fresh seeds."""

    rivals: Rivals = ()
    finalists: Finalists = 1
    tuning_seeds: TuningSeeds = 3
    tests: Tests = 10
    test_metric: TestMetric = None


class VerdictSettings(JudgeSettings):
    """Choice. Which found losses come to the test, and how long all are trained."""

    contenders: Contenders = 3
    final_epochs: FinalEpochs = 10


class ReadingSettings(RunSettings, TableSettings, NoiseSettings):
    """What reads data."""


class DataSettings(ReadingSettings):
    """Data and model. One of each."""

    dataset: Dataset = "synthetic"
    model: Model = "mf"
