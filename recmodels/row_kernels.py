"""Reading and stepping the rows of embedding tables that a batch touches, compiled for the CPU.

Each pass goes over memory once: a row is brought up to date, its gradients are summed over the batch in the order
of the samples, clipped, decayed and applied while it is in the cache. `recmodels.optimizers` says what the steps
mean, and does the same with torch on other devices.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True, error_model="numpy")
def read_rows(table, ids, steps_done, step, shrink, out):  # type: ignore[no-untyped-def]
    """Copy the row of each sample, brought up to date.

    Args:
        table: (rows, M, d) float32.
        ids: (B,) int64.
        steps_done: (rows,) int64: how many steps' decay each row has had.
        step: number of the current step.
        shrink: (steps + 1, M) float32: what n steps' decay adds to a weight, as a fraction of it.
        out: (M, B, d), written.
    """
    for b in range(ids.shape[0]):
        row = ids[b]
        behind = step - steps_done[row]
        for m in range(table.shape[1]):
            more = shrink[behind, m]
            for e in range(table.shape[2]):
                weight = table[row, m, e]
                out[m, b, e] = weight + weight * more


@njit(nogil=True, cache=True, error_model="numpy")
def step_sgd(  # type: ignore[no-untyped-def]
    table, gradients, order, starts, distinct, steps_done, step, shrink, rates, decays, loss_decay, clip
):
    """Take a step of plain SGD on the rows that a batch touched.

    Args:
        table: (rows, M, d) float32, changed in place.
        gradients: (M, B, d) float32, one a sample.
        order: (B,) int64 samples sorted by row.
        starts: (n + 1,) int64: samples of distinct row i are order[starts[i]:starts[i + 1]].
        distinct: (n,) int64 rows.
        steps_done: (rows,) int64, as in `read_rows`; changed.
        step: number of the current step.
        shrink: as in `read_rows`.
        rates: (M,) float32.
        decays: (M,) float32.
        loss_decay: float32; 2 * loss_decay * weight joins the gradient before it is clipped.
        clip: float32 bound on each element of the gradient.
    """
    size = table.shape[2]
    total = np.empty(size, np.float32)
    twice = np.float32(2) * loss_decay
    for i in range(distinct.shape[0]):
        row = distinct[i]
        behind = step - steps_done[row]
        steps_done[row] = step + 1
        for m in range(table.shape[1]):
            more = shrink[behind, m]
            rate = rates[m]
            decay = decays[m]
            first = order[starts[i]]
            for e in range(size):
                total[e] = gradients[m, first, e]
            for k in range(starts[i] + 1, starts[i + 1]):
                sample = order[k]
                for e in range(size):
                    total[e] += gradients[m, sample, e]
            for e in range(size):
                weight = table[row, m, e]
                weight += weight * more
                pull = total[e] + twice * weight
                pull = clip if pull > clip else pull
                pull = -clip if pull < -clip else pull
                table[row, m, e] = weight - rate * (pull + decay * weight)


@njit(nogil=True, cache=True, error_model="numpy")
def step_adagrad(  # type: ignore[no-untyped-def]
    table, accumulator, gradients, order, starts, distinct, rates, decays, clip
):
    """Take a step of Adagrad, per element, on the rows that a batch touched.

    Args:
        table: (rows, M, d) float32, changed in place.
        accumulator: (rows, M, d) float32 sums of squared gradients, changed in place.
        gradients: (M, B, d) float32, one a sample.
        order: (B,) int64 samples sorted by row.
        starts: (n + 1,) int64, as in `step_sgd`.
        distinct: (n,) int64 rows.
        rates: (M,) float32.
        decays: (M,) float32; decay * weight joins the gradient.
        clip: float32 bound on each element of the gradient.
    """
    size = table.shape[2]
    total = np.empty(size, np.float32)
    for i in range(distinct.shape[0]):
        row = distinct[i]
        for m in range(table.shape[1]):
            rate = rates[m]
            decay = decays[m]
            first = order[starts[i]]
            for e in range(size):
                total[e] = gradients[m, first, e]
            for k in range(starts[i] + 1, starts[i + 1]):
                sample = order[k]
                for e in range(size):
                    total[e] += gradients[m, sample, e]
            for e in range(size):
                weight = table[row, m, e]
                pull = total[e]
                pull = clip if pull > clip else pull
                pull = -clip if pull < -clip else pull
                pull += decay * weight
                own = accumulator[row, m, e] + pull * pull
                accumulator[row, m, e] = own
                table[row, m, e] = weight - rate * pull / np.sqrt(own)
