"""Steps of one candidate's rows, compiled: a source beside `mf_kernel.py`, which says what they are steps of.

WIDTH becomes the length of a row. What the steps mean is said in `recmodels.training.stacked.row_kernels`.
"""

# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit

from recmodels.training.fused.arguments import (
    ADAGRAD,
    ADAM,
    BETA_1,
    BETA_2,
    EPSILON,
    SGD,
    Floats,
    Memory,
    OptimizerState,
    Step,
    Table,
    Words,
)
from recmodels.training.vectors import (
    LANES,
    Vector,
    bounded,
    load,
    multiply_add,
    spread,
    square_root,
    store,
    zero_if,
)

WIDTH = 64  # @width
ZERO: Final = np.float32(0)
ONE: Final = np.float32(1)

#: Nothing is allocated in here, so references need not be counted: that would cost more than the arithmetic, and
#: threads would wait for each other.
compiled = njit(error_model="numpy", nogil=True, cache=True, _nrt=False)  # type: ignore[call-overload]
inlined = njit(inline="always")


@inlined
def clipped(value: np.float32, bound: np.float32) -> np.float32:
    """Return the value, or the bound that it exceeds. NaN stays."""
    value = bound if value > bound else value
    return -bound if value < -bound else value


@inlined
def adagrad_vector(
    weight: Vector, gradient: Vector, squares: Vector, rate: Vector, decay: Vector, bound: Vector
) -> tuple[Vector, Vector]:
    """Return weights and sums of squares after a step."""
    pull = multiply_add(decay, weight, bounded(gradient, bound))
    squares = multiply_add(pull, pull, squares)
    return weight - rate * pull / square_root(squares), squares


@inlined
def adagrad_number(
    weight: np.float32, gradient: np.float32, squares: np.float32, step: Step
) -> tuple[np.float32, np.float32]:
    """Return a weight and its sum of squares after a step."""
    pull = clipped(gradient, step.clip) + step.decay * weight
    squares = squares + pull * pull
    return weight - step.rate * pull / np.sqrt(squares), squares


@inlined
def adam_vector(
    weight: Vector,
    gradient: Vector,
    first: Vector,
    second: Vector,
    rate: Vector,
    root_bias: Vector,
    decay: Vector,
    bound: Vector,
) -> tuple[Vector, Vector, Vector]:
    """Return weights and both moments after a step."""
    pull = multiply_add(decay, weight, bounded(gradient, bound))
    first = multiply_add(spread(ONE - BETA_1), pull, spread(BETA_1) * first)
    second = multiply_add(spread(ONE - BETA_2), pull * pull, spread(BETA_2) * second)
    return weight - rate * first / multiply_add(square_root(second), root_bias, spread(EPSILON)), first, second


@inlined
def adam_number(
    weight: np.float32, gradient: np.float32, first: np.float32, second: np.float32, step: Step
) -> tuple[np.float32, np.float32, np.float32]:
    """Return a weight and its moments after a step."""
    pull = clipped(gradient, step.clip) + step.decay * weight
    first = BETA_1 * first + (ONE - BETA_1) * pull
    second = BETA_2 * second + (ONE - BETA_2) * (pull * pull)
    return weight - step.rate * first / (np.sqrt(second) * step.root_bias + EPSILON), first, second


@inlined
def corrected(step: Step, state: OptimizerState, row: int) -> Step:
    """Count a step of Adam's with a row; return it with the corrections that belong to that number of steps."""
    state.steps[row] += 1
    t = min(state.steps[row], state.corrections.shape[0] - 1)
    rate = step.rate * state.corrections[t, 0]
    return Step(rate, step.decay, step.more, step.twice, step.clip, state.corrections[t, 1])


@inlined
def step_bias(
    optimizer: int, table: Table, state: OptimizerState, row: int, gradient: np.float32, step: Step
) -> None:
    """Step a bias; the arguments are those of `step_row`, the step is corrected already."""
    biases = table.biases
    first = state.first.biases
    second = state.second.biases
    if optimizer == SGD:
        pull = clipped(gradient + step.twice * biases[row], step.clip)
        biases[row] += step.more * biases[row] - step.rate * pull
    elif optimizer == ADAGRAD:
        biases[row], first[row] = adagrad_number(biases[row], gradient, first[row], step)
    else:
        biases[row], first[row], second[row] = adam_number(biases[row], gradient, first[row], second[row], step)


@inlined
def step_row(
    optimizer: int, table: Table, state: OptimizerState, row: int, sums: Floats, slot: int, step: Step
) -> None:
    """Step a row whose gradient was summed.

    Args:
        optimizer: SGD, ADAGRAD or ADAM.
        table: the weights.
        state: of the optimiser.
        row: to be stepped.
        sums: of `Memory`.
        slot: the row's.
        step: how far.
    """
    if optimizer == ADAM:
        step = corrected(step, state, row)
    vectors = table.vectors
    first = state.first.vectors
    second = state.second.vectors
    bound = spread(step.clip)
    rates = spread(step.rate)
    decays = spread(step.decay)
    if optimizer == SGD:
        growth = spread(step.more)
        descent = spread(-step.rate)
        decays = spread(step.twice)
        for e in range(0, WIDTH, LANES):
            weight = load(vectors, row, e)
            pull = bounded(multiply_add(decays, weight, load(sums, slot, e)), bound)
            store(vectors, row, e, multiply_add(descent, pull, multiply_add(growth, weight, weight)))
    elif optimizer == ADAGRAD:
        for e in range(0, WIDTH, LANES):
            gradient = load(sums, slot, e)
            weight, one = adagrad_vector(load(vectors, row, e), gradient, load(first, row, e), rates, decays, bound)
            store(vectors, row, e, weight)
            store(first, row, e, one)
    else:
        root_biases = spread(step.root_bias)
        for e in range(0, WIDTH, LANES):
            weight, one, two = adam_vector(
                load(vectors, row, e),
                load(sums, slot, e),
                load(first, row, e),
                load(second, row, e),
                rates,
                root_biases,
                decays,
                bound,
            )
            store(vectors, row, e, weight)
            store(first, row, e, one)
            store(second, row, e, two)
    step_bias(optimizer, table, state, row, sums[slot, WIDTH], step)


@compiled
def step_shared(
    optimizer: int,
    table: Table,
    state: OptimizerState,
    users: Words,
    items: Words,
    first: int,
    scale: np.float32,
    memory: Memory,
    step: Step,
) -> None:
    """Step the users and items of samples that share them.

    Args:
        optimizer: SGD, ADAGRAD or ADAM.
        table: the weights.
        state: of the optimiser.
        users: (B,) uint32 words of a batch.
        items: (B,) uint32 words.
        first: the first sample to take part.
        scale: of the table.
        memory: with the samples' slopes.
        step: how far.
    """
    slots = memory.slots
    sums = memory.sums
    used = np.int64(1)
    last = users.shape[0]
    for k in range(first, last):
        user = users[k] >> 2
        item = items[k] >> 2
        new_user = np.int64(users[k] & 1)
        new_item = np.int64(items[k] & 1)
        slot = np.int64(slots[item])
        slot += (used - slot) * new_item  # not a branch: it could not be predicted
        slots[item] = slot
        memory.rows[slot] = item
        used += new_item
        slope = memory.slopes[0, k]
        factor = spread(slope * scale)
        for e in range(0, WIDTH, LANES):
            before = zero_if(new_user, load(sums, 0, e))
            store(sums, 0, e, multiply_add(factor, load(table.vectors, item, e), before))
            before = zero_if(new_item, load(sums, slot, e))
            store(sums, slot, e, multiply_add(factor, load(table.vectors, user, e), before))
        sums[0, WIDTH] = slope + (ZERO if new_user else sums[0, WIDTH])
        sums[slot, WIDTH] = slope + (ZERO if new_item else sums[slot, WIDTH])
        if k + 1 == last or users[k + 1] & 1:
            step_row(optimizer, table, state, user, sums, 0, step)
    for own in range(1, used):
        step_row(optimizer, table, state, memory.rows[own], sums, own, step)


@compiled
def step_alone_by_sgd(
    table: Table, users: Words, items: Words, scale: np.float32, memory: Memory, step: Step
) -> None:
    """Step users and items that occur once in the batch, where there is no decay in the loss."""
    vectors = table.vectors
    bound = spread(step.clip)
    descent = spread(-step.rate)
    for k in range(users.shape[0]):
        user = users[k] >> 2
        item = items[k] >> 2
        slope = memory.slopes[0, k]
        factor = spread(slope * scale)
        for e in range(0, WIDTH, LANES):
            of_user = load(vectors, user, e)
            of_item = load(vectors, item, e)
            store(vectors, user, e, multiply_add(descent, bounded(factor * of_item, bound), of_user))
            store(vectors, item, e, multiply_add(descent, bounded(factor * of_user, bound), of_item))
        change = step.rate * clipped(slope, step.clip)
        table.biases[user] -= change
        table.biases[item] -= change


@compiled
def step_alone_by_adagrad(
    table: Table, squares: Table, users: Words, items: Words, memory: Memory, step: Step
) -> None:
    """Step users and items that occur once in the batch; `squares` are the sums of squared gradients."""
    vectors = table.vectors
    biases = table.biases
    bound = spread(step.clip)
    rates = spread(step.rate)
    decays = spread(step.decay)
    for k in range(users.shape[0]):
        user = users[k] >> 2
        item = items[k] >> 2
        slope = memory.slopes[0, k]
        factor = spread(slope)
        for e in range(0, WIDTH, LANES):
            of_user = load(vectors, user, e)
            of_item = load(vectors, item, e)
            of_squares = load(squares.vectors, user, e)
            weight, own = adagrad_vector(of_user, factor * of_item, of_squares, rates, decays, bound)
            store(vectors, user, e, weight)
            store(squares.vectors, user, e, own)
            of_squares = load(squares.vectors, item, e)
            weight, own = adagrad_vector(of_item, factor * of_user, of_squares, rates, decays, bound)
            store(vectors, item, e, weight)
            store(squares.vectors, item, e, own)
        biases[user], squares.biases[user] = adagrad_number(biases[user], slope, squares.biases[user], step)
        biases[item], squares.biases[item] = adagrad_number(biases[item], slope, squares.biases[item], step)


@compiled
def multiply_table(table: Table, scale: np.float32) -> None:
    """Multiply all weights but the global bias."""
    vectors = table.vectors
    factor = spread(scale)
    for row in range(vectors.shape[0]):
        for e in range(0, WIDTH, LANES):
            store(vectors, row, e, factor * load(vectors, row, e))
        table.biases[row] *= scale
