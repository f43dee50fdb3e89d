"""The best settings of every loss on validation: all tuned alike, raced, in ranges that grow where they must."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from gploss.arguments import each, instance, seed_number, whole_number
from gploss.compute.kinds import Loss
from gploss.search.cache import Cache
from gploss.setting import Setting
from recmodels.evaluators.evaluator import training_seed
from recmodels.training.problem import Problem
from recmodels.training.trainer import Trainer
from recmodels.verdict.race import FIRST, Trial, race, rungs
from recmodels.verdict.rivals import Rival, distinct
from recmodels.verdict.runs import Run, Runs

#: Called with a line of text about what is done next.
Say = Callable[[str], None]

#: Settings of the protocol that are tuned; with them those that the problem declares, and the constants of a loss.
TUNED: Final = ("learning_rate", "weight_decay")

#: Replicates from here on are seeds of tuning.
_TUNING: Final = 500_000

#: Models whose weights are held in memory at a time; one loss's may be more.
_AT_A_TIME: Final = 256


@dataclass(frozen=True)
class Tuned:
    """A loss with its best settings.

    Attributes:
        rival: the loss as it was given.
        loss: the loss with the best values of its constants.
        settings: the best values of the other settings, by name.
        validation: mean over problems and seeds of the best validation value, under these settings.
        tried: how many settings were compared.
        on_edge: settings whose best value lies at an end of a range that has grown as far as it may.
    """

    rival: Rival
    loss: Loss
    settings: Mapping[str, float]
    validation: float
    tried: int
    on_edge: tuple[str, ...]

    @property
    def name(self) -> str:
        """All names of the loss."""
        return self.rival.title

    @property
    def group(self) -> str:
        """The rival's group."""
        return self.rival.group


@dataclass(frozen=True)
class Tuning:
    """What came out of tuning.

    Attributes:
        tuned: every loss that can be trained.
        left_out: why others cannot, by name.
    """

    tuned: list[Tuned]
    left_out: dict[str, str]


def tune(
    rivals: Sequence[Rival],
    trainer: Trainer,
    problems: Sequence[Problem],
    *,
    epochs: int,
    seed: int,
    seeds: int,
    cache: Cache | None = None,
    say: Say = lambda line: None,
) -> Tuning:
    """Find each loss's best settings on validation.

    Args:
        rivals: losses; the same one under two names is trained once.
        trainer: trains them all.
        problems: on whose validation parts settings are compared, by the mean; of one task and one metric.
        epochs: at most so many.
        seed: of the experiment.
        seeds: training seeds on each problem.
        cache: keeps what was trained, so that tuning that was cut off goes on where it was; or None.
        say: told what is done next.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: there is no problem, or a number is out of range.
    """
    each("rivals", rivals, Rival, "a Rival, such as rivals_of makes")
    instance("trainer", trainer, Trainer, "a Trainer")
    if not each("problems", problems, Problem, "a Problem"):
        raise ValueError("there is no problem to tune on")
    epochs, seed = whole_number("epochs", epochs, least=1), seed_number("seed", seed)
    seeds = whole_number("seeds", seeds, least=1)
    if cache is not None:
        instance("cache", cache, Cache, 'a Cache, such as Cache("losses.sqlite"), or None')
    task, protocol = problems[0].task, trainer.protocol
    sound, left_out = distinct(rivals, task, scale_free=protocol.scale_free)
    declared = trainer.settings(problems[0])
    shared = {name: declared[name] for name in (*TUNED, *problems[0].settings)}
    training_seeds = [training_seed(seed, _TUNING + s) for s in range(seeds)]
    replicates = len(problems) * seeds
    size = max(1, _AT_A_TIME // (FIRST * replicates))
    say(
        f"tuning {len(sound)} losses: {FIRST} settings each with {replicates} trainings, half of them dropped "
        f"after {' and '.join(map(str, rungs(epochs)[:-1])) or 'no'} of {epochs} epochs, then more around the best"
    )
    tuned = []
    for first in range(0, len(sound), size):
        group = sound[first : first + size]
        runs = [Runs(trainer, problem, cache) for problem in problems]
        tuned += _tune_group(group, shared, runs, training_seeds, epochs)
        say(f"tuned {min(first + size, len(sound))} of {len(sound)} losses")
    for one, rival in zip(tuned, sound, strict=True):
        if one is None:
            left_out[rival.title] = "no settings can train it: every training diverged"
    return Tuning([one for one in tuned if one is not None], left_out)


def _tune_group(
    rivals: Sequence[Rival],
    shared: Mapping[str, Setting],
    runs: Sequence[Runs],
    seeds: Sequence[int],
    epochs: int,
) -> list[Tuned | None]:
    """Race the settings of some losses side by side; None for a loss that no settings can train."""
    constants = [one.constant_settings() for one in rivals]

    def measure(trials: Sequence[Trial], until: int) -> list[float]:
        wanted = []
        for trial in trials:
            loss, settings = _filled(rivals[trial.loss], trial.settings)
            wanted += [Run(loss, seed, tuple(sorted(settings.items()))) for seed in seeds]
        values = np.stack([own.best(wanted, until) for own in runs])
        means: list[float] = values.reshape(len(runs), len(trials), len(seeds)).mean(axis=(0, 2)).tolist()
        return means

    found = race([{**shared, **own} for own in constants], measure, epochs)
    tuned: list[Tuned | None] = []
    sign = 1.0 if runs[0].problem.higher_is_better else -1.0
    for rival, best in zip(rivals, found, strict=True):
        loss, settings = _filled(rival, best.settings)
        own = Tuned(rival, loss, settings, sign * best.value, best.tried, best.on_edge)
        tuned.append(own if np.isfinite(best.value) else None)
    return tuned


def _filled(rival: Rival, settings: Mapping[str, float]) -> tuple[Loss, dict[str, float]]:
    """Put the constants among some settings into the loss; return it, and the other settings."""
    constants = rival.loss.constants
    own = {name: value for name, value in settings.items() if name in constants}
    rest = {name: value for name, value in settings.items() if name not in constants}
    return rival.loss.with_constants(**own), rest
