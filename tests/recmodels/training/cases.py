"""A small problem, losses and members for the tests of trainers, and plain training in float64 to compare with."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gploss.compute.program import Program
from gploss.language.expression import Expression
from gploss.screening.screening import screen
from gploss.tasks.pointwise import max_ratio
from recmodels.data.interactions import Interactions, Split
from recmodels.data.pointwise import PointwiseProblem
from recmodels.data.rows import Schema
from recmodels.models.base import build_model
from recmodels.models.mf import MF
from recmodels.training.protocol import PAPER, STANDARD, Protocol
from recmodels.training.trainer import Member, State, TrainReport

N_USERS: Final = 40
N_ITEMS: Final = 60


def small_split(seed: int = 0, sizes: tuple[int, int, int] = (2001, 301, 301)) -> Split:
    """A split with taste in it: labels follow a low-rank score with noise."""
    rng = np.random.default_rng(seed)
    users, items = rng.normal(size=(N_USERS, 2)), rng.normal(size=(N_ITEMS, 2))

    def part(rows: int) -> Interactions:
        user, item = rng.integers(0, N_USERS, rows), rng.integers(0, N_ITEMS, rows)
        score = (users[user] * items[item]).sum(1) + rng.normal(size=rows)
        return Interactions(user, item, (score > 0).astype(np.float32), N_USERS, N_ITEMS)

    return Split("small", *(part(rows) for rows in sizes))


SPLIT: Final = small_split()
PROBLEM: Final = PointwiseProblem(SPLIT)
SCHEMA: Final = Schema({"user": N_USERS, "item": N_ITEMS})


#: Without early stopping, which would end a member before its weights can be compared.
STANDARD_LONG: Final = dataclasses.replace(STANDARD, patience=None)
PAPER_LONG: Final = dataclasses.replace(PAPER, patience=None)
PROTOCOLS: Final = {
    "standard": STANDARD_LONG,
    "paper": PAPER_LONG,
    "paper with loss decay": dataclasses.replace(PAPER_LONG, loss_decay=1e-3),
    "tightly clipped": dataclasses.replace(PAPER_LONG, gradient_clip=0.002, weight_decay=0.1),
    "adagrad, clipped": dataclasses.replace(STANDARD_LONG, gradient_clip=0.002, weight_decay=0.05),
    "odd batches": dataclasses.replace(PAPER_LONG, batch_size=100),  # 2001 rows: the last batch has 101
}


def mf_for(protocol: Protocol) -> functools.partial[MF]:
    return functools.partial(MF, embedding_size=8, initialization=protocol.initialization)


def _cross_entropy(score: Tensor, label: Tensor) -> Tensor:
    return score.relu() + (1 + (-score.abs()).exp() + 1e-6).log() - label * score  # 1e-6: the operator's guard


def _log_loss(score: Tensor, label: Tensor) -> Tensor:
    pred = torch.sigmoid(score)
    return -(label * (pred + 1e-6).log() + (1 - label) * (1 - pred + 1e-6).log())


def _max_ratio(score: Tensor, label: Tensor) -> Tensor:
    pred, smoothing = torch.sigmoid(score), 1e-3
    return torch.maximum((label + smoothing) / (pred + smoothing), (pred + smoothing) / (label + smoothing))


def _clamped(score: Tensor, label: Tensor) -> Tensor:
    def clamp(value: Tensor) -> Tensor:
        return value.clamp(1e-5, 1e5)

    pred = torch.sigmoid(score)
    return clamp(clamp(label * clamp(1 / (pred + 1e-6))) + clamp(pred * pred))


LOSSES: Final[dict[str, tuple[Expression, Callable[[Tensor, Tensor], Tensor]]]] = {
    "bce": (
        Expression.parse("relu(logit) + log(1 + exp(neg(abs(logit)))) - label * logit"),
        _cross_entropy,
    ),
    "mse": (
        Expression.parse("square(label - pred)"),
        lambda score, label: (label - torch.sigmoid(score)) ** 2,
    ),
    "maxr": (max_ratio(1e-3), _max_ratio),
    "log": (Expression.parse("-(label * log(pred) + (1 - label) * log(1 - pred))"), _log_loss),
    "clamped": (Expression.parse("clamped(add(mul(label, inv(pred)), square(pred)))"), _clamped),
}


def program_of(names: Sequence[str], protocol: Protocol) -> Program:
    return screen([LOSSES[name][0] for name in names], scale_free=protocol.scale_free).losses


ALL: Final = tuple(LOSSES)


def batches_of(seed: int, epoch: int, count: int, size: int) -> list[npt.NDArray[np.int64]]:
    """The order of the data; a last batch of one row belongs to the one before."""
    order = np.random.default_rng([seed, 1, epoch]).permutation(count)
    cut = [order[first : first + size] for first in range(0, count, size)]
    if len(cut) > 1 and len(cut[-1]) == 1:
        last = cut.pop()
        cut[-1] = np.concatenate([cut[-1], last])
    return cut


def reference_scores(weights: Mapping[str, Tensor], users: Tensor, items: Tensor) -> Tensor:
    vectors = (weights["user_embedding.weight"][users] * weights["item_embedding.weight"][items]).sum(1)
    biases = weights["user_bias.weight"][users, 0] + weights["item_bias.weight"][items, 0]
    return vectors + biases + weights["global_bias"]


def reference_training(
    loss: str, multiplier: float, member: Member, protocol: Protocol, train: Interactions, epochs: int = 1
) -> dict[str, Tensor]:
    """Train one MF plainly in float64; return its weights."""
    module = build_model(mf_for(protocol), SCHEMA, member.seed)
    weights = {name: weight.detach().double() for name, weight in module.named_parameters()}
    sums = {name: torch.full_like(weight, protocol.initial_accumulator) for name, weight in weights.items()}
    values = LOSSES[loss][1]
    rate, decay = member.settings["learning_rate"], member.settings["weight_decay"]
    batch_size = int(member.settings.get("batch_size", protocol.batch_size))
    for epoch in range(epochs):
        for rows in batches_of(member.seed, epoch, len(train), batch_size):
            users, items = torch.tensor(train.users[rows]), torch.tensor(train.items[rows])
            label = torch.tensor(train.labels[rows]).double()
            leaves = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
            own = values(reference_scores(leaves, users, items), label)
            if train.weights is not None:
                own = own * torch.tensor(train.weights[rows] / train.weights.mean(dtype=np.float64))
            batch_loss = multiplier * own.mean()
            gradients = dict(zip(leaves, torch.autograd.grad(batch_loss, list(leaves.values())), strict=True))
            for name, weight in weights.items():
                gradient = gradients[name] + 2 * protocol.loss_decay * weight
                if protocol.gradient_clip is not None:
                    gradient = gradient.clamp(-protocol.gradient_clip, protocol.gradient_clip)
                gradient = gradient + decay * weight
                if protocol.optimizer == "sgd":
                    weights[name] = weight - rate * gradient
                    continue
                touched = torch.zeros(len(weight) if weight.ndim else 1, dtype=torch.bool)
                touched[{"user": users, "item": items}.get(name[:4], torch.tensor(0))] = True
                touched = touched.view(-1, 1) if weight.ndim else touched[0]
                gradient = torch.where(touched, gradient, torch.zeros(()).double())
                sums[name] = sums[name] + gradient**2
                weights[name] = weight - rate * gradient / sums[name].sqrt()
    return weights


def assert_same(first: TrainReport, second: TrainReport, rows: Sequence[int] | None = None) -> None:
    """The same bits, seconds aside; `rows` are the places in `second` of the members of `first`."""
    places = range(len(first.outcomes)) if rows is None else rows
    index = np.array(places, np.int64)
    for name, column in first.metrics.items():
        np.testing.assert_array_equal(column, second.metrics[name][index])
    assert first.outcomes == [second.outcomes[row] for row in places]
    assert first.reasons == [second.reasons[row] for row in places]
    np.testing.assert_array_equal(first.stopped_at, second.stopped_at[index])
    assert (first.states is None) == (second.states is None)
    if first.states is not None and second.states is not None:
        assert_same_states(first.states, second.states.take(list(places)))


def assert_same_states(first: State, second: State) -> None:
    np.testing.assert_array_equal(first.epochs, second.epochs)
    for mine, other in ((first.weights, second.weights), (first.optimizer, second.optimizer)):
        assert mine.keys() == other.keys()
        for name, tensor in mine.items():
            torch.testing.assert_close(tensor, other[name], rtol=0, atol=0, equal_nan=True)


def member(loss: int, seed: int, learning_rate: float, weight_decay: float, **settings: float) -> Member:
    return Member(loss, seed, {"learning_rate": learning_rate, "weight_decay": weight_decay, **settings})


def members_of(count: int, protocol: Protocol, *, losses: int = 5, seeds: int = 1) -> list[Member]:
    """Members that all differ: losses, seeds, rates and decays in turn."""
    return [
        member(
            k % losses,
            k % seeds,
            protocol.learning_rate * (1 + 0.05 * k),
            protocol.weight_decay * (1 + k % 3),
        )
        for k in range(count)
    ]
