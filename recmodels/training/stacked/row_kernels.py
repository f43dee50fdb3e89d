"""Reading and stepping the rows of embedding tables that a batch touches, compiled for the CPU.

A source of `recmodels.training.compiled.load_compiled`. Each pass goes over memory once: a row is brought up to
date, its gradients are summed over the batch in the order of the samples, clipped, decayed and applied while it is
in registers. `recmodels.training.stacked.optimizers` says what the steps mean, and does the same with torch on
other devices.

Arrays called flat hold what is said of them from the first number to the last; d numbers always lie together.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from recmodels.training.vectors import (
    LANES,
    Vector,
    bounded,
    load_flat,
    multiply_add,
    spread,
    square_root,
    store_flat,
)

Floats = npt.NDArray[np.float32]
LongInts = npt.NDArray[np.int64]

compiled = njit(error_model="numpy", nogil=True, cache=True)


@compiled
def read_rows(
    table: Floats,
    members: int,
    size: int,
    ids: LongInts,
    steps_done: LongInts,
    step: int,
    shrink: Floats,
    out: Floats,
) -> None:
    """Copy the row of each sample, brought up to date.

    Args:
        table: flat (rows, M, d) float32.
        members: M.
        size: d.
        ids: (B,) int64.
        steps_done: (rows,) int64: how many steps' decay each row has had.
        step: number of the current step.
        shrink: (steps + 1, M) float32: what n steps' decay adds to a weight, as a fraction of it.
        out: flat (M, B, d), written.
    """
    count = ids.shape[0]
    if size == 1:
        for b in range(count):
            behind, first = step - steps_done[ids[b]], ids[b] * members
            for m in range(members):
                weight = table[first + m]
                out[m * count + b] = weight + weight * shrink[behind, m]
        return
    for b in range(count):
        behind = step - steps_done[ids[b]]
        for m in range(members):
            more = shrink[behind, m]
            source, target = (ids[b] * members + m) * size, (m * count + b) * size
            e = 0
            while e + LANES <= size:
                weight = load_flat(table, source + e)
                store_flat(out, target + e, multiply_add(weight, spread(more), weight))
                e += LANES
            for last in range(e, size):
                weight = table[source + last]
                out[target + last] = weight + weight * more


@njit(inline="always")
def summed(gradients: Floats, first: int, sample_stride: int, order: LongInts, start: int, end: int) -> Vector:
    """Return the sum over samples order[start:end] of 16 neighbours, which begin at `first` for sample 0."""
    total = load_flat(gradients, first + order[start] * sample_stride)
    for k in range(start + 1, end):
        total = total + load_flat(gradients, first + order[k] * sample_stride)
    return total


@njit(inline="always")
def summed_one(
    gradients: Floats, first: int, sample_stride: int, order: LongInts, start: int, end: int
) -> np.float32:
    """Return the same of one number."""
    total: np.float32 = gradients[first + order[start] * sample_stride]
    for k in range(start + 1, end):
        total += gradients[first + order[k] * sample_stride]
    return total


@compiled
def step_sgd(
    table: Floats,
    members: int,
    size: int,
    gradients: Floats,
    member_stride: int,
    sample_stride: int,
    order: LongInts,
    starts: LongInts,
    distinct: LongInts,
    rates: Floats,
    decays: Floats,
    clip: np.float32,
    steps_done: LongInts,
    step: int,
    shrink: Floats,
    loss_decay: np.float32,
) -> None:
    """Take a step of plain SGD on the rows that a batch touched.

    Args:
        table: flat (rows, M, d) float32, changed in place.
        members: M.
        size: d.
        gradients: flat (M, B, d) or (B, M, d) float32, one a sample.
        member_stride: from one member's gradient to the next one's.
        sample_stride: from one sample's to the next one's.
        order: (B,) int64 samples sorted by row.
        starts: (n + 1,) int64: samples of distinct row i are order[starts[i]:starts[i + 1]].
        distinct: (n,) int64 rows.
        rates: (M,) float32.
        decays: (M,) float32.
        clip: float32 bound on each element of the gradient.
        steps_done: (rows,) int64, as in `read_rows`; changed.
        step: number of the current step.
        shrink: as in `read_rows`.
        loss_decay: float32; 2 * loss_decay * weight joins the gradient before it is clipped.
    """
    twice = np.float32(2) * loss_decay
    for i in range(distinct.shape[0]):
        row = distinct[i]
        behind = step - steps_done[row]
        steps_done[row] = step + 1
        for m in range(members):
            more, rate, decay = shrink[behind, m], rates[m], decays[m]
            own, pulls = (row * members + m) * size, m * member_stride
            e = 0
            while e + LANES <= size:
                total = summed(gradients, pulls + e, sample_stride, order, starts[i], starts[i + 1])
                weight = load_flat(table, own + e)
                weight = multiply_add(weight, spread(more), weight)
                pull = bounded(multiply_add(weight, spread(twice), total), spread(clip))
                pull = multiply_add(weight, spread(decay), pull)
                store_flat(table, own + e, weight - spread(rate) * pull)
                e += LANES
            for last in range(e, size):
                sum_ = summed_one(gradients, pulls + last, sample_stride, order, starts[i], starts[i + 1])
                one = table[own + last]
                one += one * more
                sum_ += twice * one
                sum_ = clip if sum_ > clip else sum_
                sum_ = -clip if sum_ < -clip else sum_
                table[own + last] = one - rate * (sum_ + decay * one)


@compiled
def step_adagrad(
    table: Floats,
    members: int,
    size: int,
    gradients: Floats,
    member_stride: int,
    sample_stride: int,
    order: LongInts,
    starts: LongInts,
    distinct: LongInts,
    rates: Floats,
    decays: Floats,
    clip: np.float32,
    accumulator: Floats,
) -> None:
    """Take a step of Adagrad, per element, on the rows that a batch touched.

    Args:
        table: as in `step_sgd`.
        members: as there.
        size: as there.
        gradients: as there.
        member_stride: as there.
        sample_stride: as there.
        order: as there.
        starts: as there.
        distinct: as there.
        rates: as there.
        decays: (M,) float32; decay * weight joins the gradient.
        clip: as there.
        accumulator: flat (rows, M, d) float32 sums of squared gradients, changed in place.
    """
    for i in range(distinct.shape[0]):
        for m in range(members):
            rate, decay = rates[m], decays[m]
            own, pulls = (distinct[i] * members + m) * size, m * member_stride
            e = 0
            while e + LANES <= size:
                total = summed(gradients, pulls + e, sample_stride, order, starts[i], starts[i + 1])
                weight = load_flat(table, own + e)
                pull = multiply_add(weight, spread(decay), bounded(total, spread(clip)))
                sums = multiply_add(pull, pull, load_flat(accumulator, own + e))
                store_flat(accumulator, own + e, sums)
                store_flat(table, own + e, weight - spread(rate) * pull / square_root(sums))
                e += LANES
            for last in range(e, size):
                sum_ = summed_one(gradients, pulls + last, sample_stride, order, starts[i], starts[i + 1])
                sum_ = clip if sum_ > clip else sum_
                sum_ = -clip if sum_ < -clip else sum_
                one = table[own + last]
                sum_ += decay * one
                squares = accumulator[own + last] + sum_ * sum_
                accumulator[own + last] = squares
                table[own + last] = one - rate * sum_ / np.sqrt(squares)
