"""Matrix factorisation, trained for an epoch in one compiled call.

A source of `gploss.compute.cpu.load_kernels`, as `mf_steps.py` is: the interpreter of today's operator table takes
the place of the template that is imported here, WIDTH becomes the length of a row, and all of it is cached under a
hash.

One call trains one candidate on one core, so that its table stays in the core's cache. Users and items are rows of
one table, (rows, WIDTH), with their biases beside it; the global bias is the last bias. A batch takes three passes:
the scores; the interpreter, which turns them into d loss/d score, here called slopes; the steps. A gradient needs
the partner's row as it stood before the batch. Where user and item occur only once in the batch nobody else will
ask for them, and they are stepped where they lie. The other samples come user by user: a user is stepped at its
last sample, when nobody will ask for it any more; items have their gradients summed, and are stepped at the end.

Plain SGD shrinks all weights by one factor at each step. These factors are gathered in one number, the scale, and
the table holds weights divided by it until the epoch ends (Bottou, "Stochastic gradient descent tricks", 2012,
section 5.1).
"""

# mypy: disable-error-code="untyped-decorator,no-any-return"

from __future__ import annotations

from typing import Final

import numpy as np

from gploss.compute.cpu_template import BLOCK, run_block
from recmodels.training.fused.arguments import (
    ADAGRAD,
    ADAM,
    SGD,
    Floats,
    LongInts,
    Loss,
    Memory,
    OptimizerState,
    Order,
    Settings,
    Step,
    Table,
    Words,
)
from recmodels.training.fused.mf_steps import (
    ONE,
    WIDTH,
    ZERO,
    compiled,
    corrected,
    inlined,
    multiply_table,
    step_alone_by_adagrad,
    step_alone_by_sgd,
    step_bias,
    step_shared,
)
from recmodels.training.vectors import (
    LANES,
    flush_denormals,
    load,
    multiply_add,
    restore_mode,
    spread,
    store,
    total,
)

#: Below this the scale is multiplied into the table early.
SMALLEST_SCALE: Final = 1e-6


@inlined
def score(table: Table, user: int, item: int, scale: np.float32) -> np.float32:
    """Return the score of one user and item, without the global bias."""
    products = load(table.vectors, user, 0) * load(table.vectors, item, 0)
    for e in range(LANES, WIDTH, LANES):
        products = multiply_add(load(table.vectors, user, e), load(table.vectors, item, e), products)
    return scale * (scale * total(products) + (table.biases[user] + table.biases[item]))


@inlined
def whole_blocks(size: int) -> int:
    """Return the next multiple of 16."""
    return (size + LANES - 1) // LANES * LANES


@compiled
def score_samples(table: Table, users: LongInts, items: LongInts, n_users: int, scores: Floats) -> None:
    """Compute scores outside of training.

    Args:
        table: the weights.
        users: (N,) int64 ids.
        items: (N,) int64 ids.
        n_users: the row of the first item.
        scores: (N,) float32, written.
    """
    for k in range(users.shape[0]):
        scores[k] = score(table, users[k], n_users + items[k], ONE) + table.biases[-1]


@compiled
def score_batch(table: Table, users: Words, items: Words, scale: np.float32, scores: Floats) -> None:
    """Compute the scores of a batch; what is left of a block of 16 is filled with zeros.

    The interpreter takes whole blocks of 16, because a compiled loop is slow with what is left over.

    Args:
        table: the weights.
        users: (B,) uint32 words of `Order`.
        items: (B,) uint32 words.
        scale: of the table.
        scores: (capacity,) float32, written.
    """
    global_bias = table.biases[-1]
    size = users.shape[0]
    for k in range(size):
        scores[k] = score(table, users[k] >> 2, items[k] >> 2, scale) + global_bias
    for k in range(size, whole_blocks(size)):
        scores[k] = ZERO


@inlined
def unpack_flags(users: Words, row: Floats) -> None:
    """Write the flags of a batch's users into a row of the samples, and zeros behind them likewise."""
    size = users.shape[0]
    for k in range(size):
        row[k] = np.float32(np.int32((users[k] >> 1) & 1))
    for k in range(size, whole_blocks(size)):
        row[k] = ZERO


@inlined
def copy_padded(column: Floats, row: Floats) -> None:
    """Copy what a loss reads of a batch, (B,), into a row of the samples, and zeros behind it likewise."""
    size = column.shape[0]
    for k in range(size):
        row[k] = column[k]
    for k in range(size, whole_blocks(size)):
        row[k] = ZERO


@inlined
def differentiate(loss: Loss, size: int, memory: Memory) -> None:
    """Compute d loss/d score of a batch of so many samples, block by block."""
    whole = whole_blocks(size)
    for start in range(0, whole, BLOCK):
        run_block(
            loss.instructions,
            loss.constants,
            loss.root,
            loss.used,
            loss.clamped,
            loss.multiplier,
            memory.samples,
            start,
            min(BLOCK, whole - start),
            memory.values,
            memory.adjoints,
        )


@compiled
def mean_slopes(size: int, weights: Floats, slopes: Floats) -> tuple[np.float32, bool]:
    """Turn the slopes of a batch's losses into those of their mean.

    Args:
        size: of the batch, B.
        weights: (B,) what each sample's loss is multiplied with, or (0,).
        slopes: of `Memory`, changed.

    Returns:
        Their sum, and whether all are finite.
    """
    for k in range(size, whole_blocks(size)):
        slopes[0, k] = ZERO
    for k in range(weights.shape[0]):
        slopes[0, k] *= weights[k]
    count = spread(np.float32(size))
    sums = spread(ZERO)
    nothing = spread(ZERO)
    for k in range(0, size, LANES):
        slope = load(slopes, 0, k) / count
        store(slopes, 0, k, slope)
        sums = sums + slope
        nothing = nothing + (slope - slope)  # NaN where a slope is not finite
    return total(sums), total(nothing) == ZERO


@compiled
def train_epoch(
    optimizer: int,
    table: Table,
    state: OptimizerState,
    order: Order,
    loss: Loss,
    memory: Memory,
    settings: Settings,
) -> bool:
    """Train one candidate for an epoch.

    Args:
        optimizer: SGD, ADAGRAD or ADAM.
        table: the weights, changed.
        state: of the optimiser, changed; not looked at for SGD.
        order: of the samples.
        loss: to be trained with.
        memory: to work with.
        settings: rate, decays and bound.

    Returns:
        Whether all went well: otherwise there was a slope that is not finite, and training ended there.
    """
    mode = flush_denormals()
    scale = 1.0
    all_factor = 1.0
    more = ZERO
    learning_rate = settings.learning_rate
    twice = np.float32(2 * settings.loss_decay)
    rate = np.float32(learning_rate)
    decay = np.float32(settings.weight_decay)
    if optimizer == SGD:
        all_factor = 1 - learning_rate * (settings.weight_decay + 2 * settings.loss_decay)
        more = np.float32(2 * learning_rate * settings.loss_decay / all_factor)
    fine = all_factor > 0
    for b in range(order.bounds.shape[0] - 1):
        if not fine:
            break
        if scale < SMALLEST_SCALE:
            multiply_table(table, np.float32(scale))
            scale = 1.0
        begin = order.bounds[b]
        end = order.bounds[b + 1]
        now = np.float32(scale)
        users = order.users[begin:end]
        items = order.items[begin:end]
        score_batch(table, users, items, now, memory.samples[loss.score])
        column = 0
        for f in range(loss.given.shape[0]):
            if f == order.flag:
                unpack_flags(users, memory.samples[loss.given[f]])
            else:
                copy_padded(order.inputs[column, begin:end], memory.samples[loss.given[f]])
                column += 1
        differentiate(loss, end - begin, memory)
        slope, fine = mean_slopes(end - begin, order.weights[begin:end], memory.slopes)
        if not fine:
            continue
        step = Step(rate, decay, more, twice, settings.clip, ONE)
        n_alone = 0
        if optimizer == SGD:
            scale *= all_factor
            step = Step(np.float32(learning_rate / scale), decay, more, twice * now, settings.clip, ONE)
            if settings.loss_decay == 0:
                n_alone = order.alone[b] - begin
                step_alone_by_sgd(table, users[:n_alone], items[:n_alone], now, memory, step)
        elif optimizer == ADAGRAD:
            n_alone = order.alone[b] - begin
            step_alone_by_adagrad(table, state.first, users[:n_alone], items[:n_alone], memory, step)
        step_shared(optimizer, table, state, users, items, n_alone, now, memory, step)
        shrinking = np.float32(-learning_rate * settings.weight_decay)
        step = Step(rate, decay, shrinking, twice, settings.clip, ONE)
        if optimizer == ADAM:
            step = corrected(step, state, table.vectors.shape[0])
        step_bias(optimizer, table, state, table.vectors.shape[0], slope, step)
    if scale != 1.0:
        multiply_table(table, np.float32(scale))
    restore_mode(mode)
    return fine
