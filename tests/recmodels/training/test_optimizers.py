"""Optimiser steps on stacked rows against dense float64 ones, in torch and compiled."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recmodels.training.protocol import PAPER, STANDARD, Protocol
from recmodels.training.stacked.compiled_optimizer import CompiledOptimizer
from recmodels.training.stacked.optimizers import Optimizer, Places

CPU = torch.device("cpu")
ROWS, MEMBERS, WIDTH = 9, 3, 4


@given(st.lists(st.integers(0, 8), min_size=1, max_size=40), st.lists(st.integers(1, 6), min_size=1, max_size=9))
def test_places_of_an_epochs_batches_are_those_of_each_batch(ids: list[int], sizes: list[int]) -> None:
    bounds = [0, *(bound for bound in np.cumsum(sizes).tolist() if bound < len(ids)), len(ids)]
    batches = [slice(*pair) for pair in itertools.pairwise(bounds)]
    everything = np.array(ids, np.int64)
    for batch, places in zip(batches, Places.of_batches(everything, batches), strict=True):
        own = Places.of(everything[batch], CPU)
        for field in dataclasses.fields(Places):
            assert getattr(places, field.name).tolist() == getattr(own, field.name).tolist()


@given(st.lists(st.integers(0, 8), min_size=1, max_size=30))
def test_places(ids: list[int]) -> None:
    places = Places.of(np.array(ids, np.int64), CPU)
    assert places.distinct.tolist() == sorted(set(ids))
    assert places.distinct[places.inverse].tolist() == ids
    for k, row in enumerate(places.distinct.tolist()):
        samples = places.order[places.starts[k] : places.starts[k + 1]].tolist()
        assert samples == [sample for sample, own in enumerate(ids) if own == row]
    assert places.starts[-1] == len(ids)


KINDS = [CompiledOptimizer, Optimizer]

PROTOCOLS = {
    "sgd": dataclasses.replace(PAPER, gradient_clip=None),
    "sgd, clipped, decay in the loss": dataclasses.replace(PAPER, gradient_clip=0.3, loss_decay=0.01),
    "adagrad": STANDARD,
    "adagrad, clipped": dataclasses.replace(STANDARD, gradient_clip=0.3),
}


class Reference:
    """Members one by one, dense, in float64."""

    def __init__(self, protocol: Protocol, weight: torch.Tensor, rates: torch.Tensor, decays: torch.Tensor) -> None:
        self.protocol, self.rates, self.decays = protocol, rates, decays
        self.weights = [own.double().clone() for own in weight]
        self.sums = [torch.full_like(own, protocol.initial_accumulator) for own in self.weights]

    def step(self, gradients: torch.Tensor, touched: torch.Tensor) -> None:
        """Step all members.

        Args:
            gradients: (M, rows, d).
            touched: (rows,) bool.
        """
        protocol = self.protocol
        for m, weight in enumerate(self.weights):
            gradient = gradients[m].double() + 2 * protocol.loss_decay * weight
            if protocol.gradient_clip is not None:
                gradient = gradient.clamp(-protocol.gradient_clip, protocol.gradient_clip)
            gradient = gradient + self.decays[m] * weight
            if protocol.optimizer == "sgd":
                self.weights[m] = weight - self.rates[m] * gradient
            else:
                sums = self.sums[m] + gradient**2
                stepped = weight - self.rates[m] * gradient / sums.sqrt()
                self.sums[m][touched] = sums[touched]
                self.weights[m] = torch.where(touched.view(-1, 1), stepped, weight)


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS.keys())
@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_rows_step_as_in_a_dense_float64_optimizer(protocol: Protocol, kind: type[Optimizer], data: Any) -> None:
    seed = data.draw(st.integers(0, 999))
    width = data.draw(st.sampled_from([1, 4, 16, 35]))
    samples_first = data.draw(st.booleans())
    batches = data.draw(
        st.lists(st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=12), min_size=1, max_size=6)
    )
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(MEMBERS, ROWS, width, generator=generator)
    rates, decays = torch.tensor([0.1, 0.01, 0.3]).double(), torch.tensor([0.0, 0.1, 0.02]).double()
    reference = Reference(protocol, weight, rates, decays)
    optimizer = kind(protocol, rates, decays, CPU)
    optimizer.begin_epoch(len(batches))
    table = weight.transpose(0, 1).contiguous()
    accumulator = optimizer.fresh_state({"table": table}).get("table")
    for ids in batches:
        places = Places.of(np.array(ids, np.int64), CPU)
        rows = optimizer.read_rows("table", table, places)
        expected = torch.stack([own[ids] for own in reference.weights])
        torch.testing.assert_close(rows.double(), expected, rtol=1e-4, atol=1e-5)
        gradients = torch.randn(MEMBERS, len(ids), width, generator=generator)
        dense = torch.zeros(MEMBERS, ROWS, width).index_add_(1, torch.tensor(ids), gradients)
        touched = torch.zeros(ROWS, dtype=torch.bool)
        touched[ids] = True
        reference.step(dense, touched)
        if samples_first:  # the same numbers, as most gradients lie in memory
            gradients = gradients.transpose(0, 1).contiguous().transpose(0, 1)
        optimizer.step_rows("table", table, accumulator, places, gradients)
        optimizer.end_batch()
    optimizer.end_epoch({"table": table})
    torch.testing.assert_close(table.transpose(0, 1).double(), torch.stack(reference.weights), rtol=1e-4, atol=1e-5)
    if accumulator is not None:
        sums = torch.stack(reference.sums)
        torch.testing.assert_close(accumulator.transpose(0, 1).double(), sums, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS.keys())
def test_dense_weights_step_likewise(kind: type[Optimizer], protocol: Protocol) -> None:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(MEMBERS, ROWS * WIDTH, generator=generator)
    rates, decays = torch.tensor([0.1, 0.01, 0.3]).double(), torch.tensor([0.0, 0.1, 0.02]).double()
    reference = Reference(protocol, weight.view(MEMBERS, ROWS, WIDTH), rates, decays)
    optimizer = kind(protocol, rates, decays, CPU)
    optimizer.begin_epoch(5)
    accumulator = optimizer.fresh_state({"dense": weight}).get("dense")
    for _ in range(5):
        gradient = torch.randn(MEMBERS, ROWS * WIDTH, generator=generator)
        reference.step(gradient.view(MEMBERS, ROWS, WIDTH), torch.ones(ROWS, dtype=torch.bool))
        optimizer.step_dense(weight, accumulator, gradient)
        optimizer.end_batch()
    expected = torch.stack(reference.weights).view(MEMBERS, -1)
    torch.testing.assert_close(weight.double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["SGD", "Adagrad"])
def test_the_steps_are_those_of_torch(kind: type[Optimizer], name: str) -> None:
    """Where every row is touched, torch's own optimizers do the same."""
    protocol = dataclasses.replace(PAPER if name == "SGD" else STANDARD, gradient_clip=None)
    rate, decay = torch.tensor([0.1]).double(), torch.tensor([0.02]).double()
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(ROWS, WIDTH, generator=generator)
    own = torch.nn.Parameter(weight.double().clone())
    options = {"eps": 0.0, "initial_accumulator_value": STANDARD.initial_accumulator} if name == "Adagrad" else {}
    theirs = getattr(torch.optim, name)([own], lr=0.1, weight_decay=0.02, **options)
    optimizer = kind(protocol, rate, decay, CPU)
    optimizer.begin_epoch(4)
    table = weight.unsqueeze(1).contiguous()
    accumulator = optimizer.fresh_state({"table": table}).get("table")
    for _ in range(4):
        gradient = torch.randn(ROWS, WIDTH, generator=generator)
        own.grad = gradient.double()
        theirs.step()
        places = Places.of(np.arange(ROWS), CPU)
        optimizer.step_rows("table", table, accumulator, places, gradient.unsqueeze(0))
        optimizer.end_batch()
    optimizer.end_epoch({"table": table})
    torch.testing.assert_close(table[:, 0].double(), own.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_small_decays_are_not_lost_in_rounding(kind: type[Optimizer]) -> None:
    """1 - 1e-6 is a coarse number in float32; 10,000 steps of it must still be right to 6 digits."""
    steps = 10_000
    protocol = dataclasses.replace(PAPER, gradient_clip=None)
    rates, decays = torch.tensor([0.01]).double(), torch.tensor([1e-4]).double()
    optimizer = kind(protocol, rates, decays, CPU)
    optimizer.begin_epoch(steps)
    table = torch.ones(1, 1, 1)
    for _ in range(steps):
        optimizer.end_batch()
    optimizer.end_epoch({"table": table})
    assert float(table) == pytest.approx((1 - 1e-6) ** steps, rel=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_members_that_leave_take_their_rates_with_them(kind: type[Optimizer]) -> None:
    rates, decays = torch.tensor([0.1, 0.2, 0.3]).double(), torch.tensor([1.0, 2.0, 3.0]).double()
    optimizer = kind(PAPER, rates, decays, CPU)
    optimizer.begin_epoch(2)
    shrink = optimizer.shrink.clone()
    optimizer.keep_members(torch.tensor([2, 0]))
    assert optimizer.rates.tolist() == pytest.approx([0.3, 0.1])
    assert optimizer.decays.tolist() == [3.0, 1.0]
    assert torch.equal(optimizer.shrink, shrink[:, [2, 0]])
