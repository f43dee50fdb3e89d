"""Recommender models, datasets, and the trainer that trains a population of them, each with its own loss.

`LossEvaluator` is what a searcher of gploss needs: it screens losses, recognises duplicates, looks them up in
the cache, trains the rest and measures them on validation data; `RepeatedEvaluator` takes the mean of several.
`confirm` compares what was found with tuned hand-made losses on the test part, which no search ever sees.
"""

from gploss.registry import discover
from gploss.setting import Setting
from recmodels.data.download import DownloadError
from recmodels.data.frames import interactions_from_frame
from recmodels.data.interactions import DataError, Interactions, Split
from recmodels.data.noise import Flips, Noise
from recmodels.data.pointwise import PointwiseProblem
from recmodels.data.rows import Batches, Rows, Schema
from recmodels.data.splits import at_random, by_time, leave_one_out, repeated_splits, rolling_splits
from recmodels.data.tables.columns import Vocabulary
from recmodels.datasets import DATASETS, Dataset, load_dataset
from recmodels.datasets.synthetic import ratings as synthetic_ratings
from recmodels.evaluators.alternating import AlternatingEvaluator, Step
from recmodels.evaluators.evaluator import LossEvaluator
from recmodels.evaluators.repeated import RepeatedEvaluator
from recmodels.metrics import METRICS
from recmodels.models.base import MODELS, Batch, ModelFactory
from recmodels.models.deep_model import DeepModel
from recmodels.models.mf import MF
from recmodels.models.time_limit import ModuleTooSlow, time_limit
from recmodels.training.problem import Problem
from recmodels.training.protocol import PAPER, PROTOCOLS, STANDARD, Protocol
from recmodels.training.stacked.trainer import StackedTrainer
from recmodels.training.trainer import Member, Outcome, State, Trainer, TrainReport
from recmodels.verdict.confirmation import Comparison, Verdict, confirm
from recmodels.verdict.effectiveness import Effect, effectiveness
from recmodels.verdict.rivals import HAND_MADE, Rival, rivals_of
from recmodels.verdict.tables import verdict_notes, verdict_sentence, verdict_table
from recmodels.verdict.tuning import Tuned, Tuning, tune

__all__ = [
    "DATASETS",
    "HAND_MADE",
    "METRICS",
    "MF",
    "MODELS",
    "PAPER",
    "PROTOCOLS",
    "STANDARD",
    "AlternatingEvaluator",
    "Batch",
    "Batches",
    "Comparison",
    "DataError",
    "Dataset",
    "DeepModel",
    "DownloadError",
    "Effect",
    "Flips",
    "Interactions",
    "LossEvaluator",
    "Member",
    "ModelFactory",
    "ModuleTooSlow",
    "Noise",
    "Outcome",
    "PointwiseProblem",
    "Problem",
    "Protocol",
    "RepeatedEvaluator",
    "Rival",
    "Rows",
    "Schema",
    "Setting",
    "Split",
    "StackedTrainer",
    "State",
    "Step",
    "TrainReport",
    "Trainer",
    "Tuned",
    "Tuning",
    "Verdict",
    "Vocabulary",
    "at_random",
    "by_time",
    "confirm",
    "effectiveness",
    "interactions_from_frame",
    "leave_one_out",
    "load_dataset",
    "repeated_splits",
    "rivals_of",
    "rolling_splits",
    "synthetic_ratings",
    "time_limit",
    "tune",
    "verdict_notes",
    "verdict_sentence",
    "verdict_table",
]

discover("recmodels.models", MODELS)
discover("recmodels.datasets", DATASETS)
