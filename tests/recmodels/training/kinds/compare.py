"""Every kind of module, trained by gploss and by the plain loop."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import numpy as np
import torch

from gploss.compute.program import Program
from gploss.tasks.pointwise import LOSSES, POINTWISE
from recmodels.models.base import ModelFactory
from recmodels.training.choice import ChosenTrainer, choose_trainer
from recmodels.training.protocol import STANDARD, Protocol
from recmodels.training.stacked.trainer import StackedTrainer, Way
from recmodels.training.trainer import Member, State
from tests.recmodels.training.cases import PROBLEM, SCHEMA
from tests.recmodels.training.kinds.loop import BATCH, EPOCHS, NAMES, RATES, plain_loop

SEED = 7
WAYS = {Way.LEADING: "stacked", Way.MAPPED: "stacked, mapped", Way.ONE_BY_ONE: "one by one"}


@dataclass(frozen=True)
class Found:
    """What came out.

    Attributes:
        way: that was taken.
        reason: why no faster one.
        scores: distance of the validation scores from the plain loop's, as a part of the distance of these from
            their mean.
        weights: the same of the weights and buffers of a tensor, as a part of their own length; the worst one.
    """

    way: str
    reason: str | None
    scores: float
    weights: float


def protocol_for(optimizer: str) -> Protocol:
    """Return the protocol under which the plain loop is torch's own optimiser and nothing else."""
    return replace(
        STANDARD,
        optimizer=optimizer,  # type: ignore[arg-type]
        learning_rate=RATES[optimizer],
        weight_decay=0.0,
        batch_size=BATCH,
        scale_free=False,
        patience=None,
    )


def compare(factory: ModelFactory, optimizer: str) -> Found:
    """Train two members of a module by gploss, and each by the plain loop."""
    trainer = choose_trainer(factory, protocol_for(optimizer), device="cpu")
    program = Program.compile([LOSSES[name].expression for name in NAMES], POINTWISE)
    members = [Member(k, SEED) for k in range(len(NAMES))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = trainer.fit(program, members, PROBLEM, EPOCHS, keep="last")
        assert report.states is not None
        scores = trainer.predict(report.states, PROBLEM.rows("validation"))
    off_scores = off_weights = 0.0
    for k, name in enumerate(NAMES):
        with torch.random.fork_rng(devices=[]):
            module, expected = plain_loop(factory, name, optimizer, SEED)
        spread = max(1e-3, float((expected - expected.mean()).norm()))
        off_scores = max(off_scores, float(np.linalg.norm(expected.numpy() - scores[k])) / spread)
        off_weights = max(off_weights, _weights_off(module, report.states, k))
    return Found(*way_of(trainer), off_scores, off_weights)


def _weights_off(module: torch.nn.Module, states: State, k: int) -> float:
    worst = 0.0
    for name, own in [*module.named_parameters(), *module.named_buffers()]:
        if own.layout is torch.strided and own.numel():
            expected, found = own.detach().to(torch.complex128), states.weights[name][k].to(torch.complex128)
            worst = max(worst, float((found - expected).norm() / expected.norm().clamp(min=1e-3)))
    return worst


def way_of(trainer: object) -> tuple[str, str | None]:
    """Return which way a trainer has taken, and why no faster one."""
    assert isinstance(trainer, ChosenTrainer)
    chosen = trainer.for_columns(SCHEMA)
    if not isinstance(chosen, StackedTrainer):
        return "fused", None
    plan = chosen.plans[SCHEMA]
    return WAYS[plan.way], plan.reason
