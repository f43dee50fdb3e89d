"""The interpreter of loss programs where an example has m values of some inputs, such as scores of m negatives.

This file is the second half of a template: `gploss.compute.wide` writes it behind the first, `cpu_template.py`,
whose functions it uses, and fills in reductions and terminals. What stands here in the place of a line that ends in
``# @name`` is what the tables would give for one reduction, the mean, and for a task of two inputs, of which the
second is wide.

Several examples are computed at a time. A slot that is wide holds their values one example after the other, R m of
them, another one a value for each of the R examples. Where an operator takes one of either kind, the narrow operand
is spread over the m places first, and its derivative is the sum of theirs. Values that are not there (`present`)
may be anything: no sum and no derivative sees them.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from gploss.compute.cpu_template import (
    BLOCK,
    CLAMP_HIGH,
    CLAMP_LOW,
    INPUT_COUNT,
    ONE,
    REAL,
    TERMINAL_COUNT,
    ZERO,
    Flags,
    Floats,
    Ints,
    LongInts,
    backward,
    forward,
    maximum,
)

INPUT_IS_WIDE = (False, True)  # @input_is_wide
GRADIENT_IS_WIDE = (True,)  # @gradient_is_wide

#: Bits of an instruction's shape: its value is wide, an operand has to be spread, it is a reduction.
WIDE, SPREAD_LEFT, SPREAD_RIGHT, REDUCES = 1, 2, 4, 8


@njit(error_model="numpy", nogil=True, cache=True)
def forward_step(step: Ints, clamped: bool, slot: int, values: Floats, n: int) -> None:
    """Compute one elementwise instruction; a function of its own, for a larger one takes far longer to compile."""
    forward(step, clamped, slot, values, n)


@njit(error_model="numpy", nogil=True, cache=True)
def backward_step(step: Ints, clamped: bool, slot: int, values: Floats, adjoints: Floats, n: int) -> None:
    """Propagate through one elementwise instruction."""
    backward(step, clamped, slot, values, adjoints, n)


@njit(inline="always")
def spread(values: Floats, of: int, to: int, n: int, m: int) -> None:
    """Write a narrow slot's n values m times each into another slot."""
    for r in range(n):
        for q in range(m):
            values[to, r * m + q] = values[of, r]


@njit(error_model="numpy", nogil=True, cache=True)
def reduce(
    opcode: int, values: Floats, left: int, slot: int, clamped: bool, present: Flags, first: int, n: int, m: int
) -> None:
    """Compute a reduction's value for n examples, of which the first is row `first` of `present`."""
    for r in range(n):
        peak, count, total = -REAL(np.inf), ZERO, ZERO
        for q in range(m):
            if present[first + r, q]:
                peak = maximum(peak, values[left, r * m + q])
                count += ONE
        value = ZERO
        if opcode < 0:
            continue
        elif opcode == 18:  # @reductions
            for q in range(m):
                if present[first + r, q]:
                    x = values[left, r * m + q]
                    total += x
            value = total / count
        if clamped:
            value = CLAMP_LOW if value < CLAMP_LOW else value
            value = CLAMP_HIGH if value > CLAMP_HIGH else value
        values[slot, r] = value


@njit(error_model="numpy", nogil=True, cache=True)
def reduce_backward(
    opcode: int,
    values: Floats,
    adjoints: Floats,
    left: int,
    slot: int,
    clamped: bool,
    present: Flags,
    first: int,
    n: int,
    m: int,
) -> None:
    """Add a reduction's derivative to its operand's adjoints."""
    for r in range(n):
        value = values[slot, r]
        inside = not clamped or (value > CLAMP_LOW and value < CLAMP_HIGH)
        adjoint = adjoints[slot, r] if inside else ZERO
        peak, count, total = -REAL(np.inf), ZERO, ZERO
        for q in range(m):
            if present[first + r, q]:
                peak = maximum(peak, values[left, r * m + q])
                count += ONE
        if opcode < 0:
            continue
        elif opcode == 18:  # @reductions_backward
            for q in range(m):
                if present[first + r, q]:
                    x = values[left, r * m + q]
                    total += x
            for q in range(m):
                if present[first + r, q]:
                    x = values[left, r * m + q]
                    adjoints[left, r * m + q] += adjoint * (ONE / count)


@njit(error_model="numpy", nogil=True, cache=True)
def terminals_wide(used: int, samples: Floats, values: Floats, n: int, m: int) -> None:
    """Fill in the terminals that a program uses, for n examples."""
    if used & 1:  # @terminals_wide
        for j in range(n * m):
            values[0, j] = samples[1, j] - samples[0, j // m]


@njit(error_model="numpy", nogil=True, cache=True)
def chain_wide(
    used: int, samples: Floats, values: Floats, adjoints: Floats, present: Flags, first: int, n: int, m: int
) -> None:
    """Add the derivatives with respect to the inputs, those of the terminals being known."""
    if used & 1:  # @chain_wide
        for j in range(n * m):
            if present[first + j // m, j % m]:
                value = values[0, j]
                samples[3, j] += adjoints[0, j] * (value * ZERO + ONE)


@njit(error_model="numpy", nogil=True, cache=True)
def run_wide(
    instructions: Ints,
    shapes: Ints,
    instruction_offsets: LongInts,
    constants: Floats,
    constant_offsets: LongInts,
    roots: Ints,
    root_is_wide: Flags,
    used: LongInts,
    clamped: Flags,
    multipliers: Floats,
    rows: LongInts,
    inputs: tuple[Floats, ...],
    present: Flags,
    losses: Floats,
    gradients: tuple[Floats, ...],
) -> None:
    """Run the programs named by `rows`, one a row of samples.

    Args:
        instructions: as `cpu_template.run` takes them, like all that is not said here.
        shapes: (total,) int32: bits of each instruction, see above.
        instruction_offsets: (K + 1,) int64.
        constants: (total,) of all programs.
        constant_offsets: (K + 1,) int64.
        roots: (K,) int32 slot of each program's loss.
        root_is_wide: (K,) bool: the loss is the mean over the m values of its slot.
        used: (K,) int64 bits of the terminals that occur.
        clamped: (K,) bool.
        multipliers: (K,).
        rows: (M,) int64: the program of each row.
        inputs: INPUT_COUNT arrays, (M, N, m), or (M, N, 1) where they are narrow; M may be 1.
        present: (N, m) bool: which of the m values are there; of each example at least one.
        losses: (M, N), written.
        gradients: an array for each differentiable input, (M, N, m) or (M, N, 1), written: d loss/d input, 0 where
            a value is not there.
    """
    m = present.shape[1]
    together = max(1, BLOCK // m)
    width = together * m
    slots = 1
    for k in range(roots.shape[0]):
        length = instruction_offsets[k + 1] - instruction_offsets[k]
        slots = max(slots, TERMINAL_COUNT + constant_offsets[k + 1] - constant_offsets[k] + length)
    values = np.empty((slots + 2, width), REAL)
    adjoints = np.empty((slots + 2, width), REAL)
    samples = np.empty((INPUT_COUNT + 1 + len(gradients), width), REAL)
    step = np.empty((1, 4), np.int32)
    total = losses.shape[1]
    for row in range(rows.shape[0]):
        k = rows[row]
        own = instructions[instruction_offsets[k] : instruction_offsets[k + 1]]
        shape = shapes[instruction_offsets[k] : instruction_offsets[k + 1]]
        own_constants = constants[constant_offsets[k] : constant_offsets[k + 1]]
        first_slot = TERMINAL_COUNT + own_constants.shape[0]
        last = first_slot + own.shape[0]
        root = roots[k]
        for first in range(0, total, together):
            n = min(together, total - first)
            for i in range(INPUT_COUNT):
                given = inputs[i]
                of = row if given.shape[0] > 1 else 0
                each = m if INPUT_IS_WIDE[i] else 1
                for r in range(n):
                    for q in range(each):
                        samples[i, r * each + q] = given[of, first + r, q]
            samples[INPUT_COUNT + 1 :] = ZERO
            adjoints[:last] = ZERO
            terminals_wide(used[k], samples, values, n, m)
            for c in range(own_constants.shape[0]):
                for r in range(n):
                    values[TERMINAL_COUNT + c, r] = own_constants[c]
            for i in range(own.shape[0]):
                spread_operands(own, shape, i, step, values, slots, n, m)
                if shape[i] & REDUCES:
                    reduce(step[0, 0], values, step[0, 1], first_slot + i, clamped[k], present, first, n, m)
                else:
                    cells = n * m if shape[i] & WIDE else n
                    forward_step(step, clamped[k], first_slot + i, values, cells)
            for r in range(n):
                if root_is_wide[k]:
                    count, loss = ZERO, ZERO
                    for q in range(m):
                        if present[first + r, q]:
                            loss += values[root, r * m + q]
                            count += ONE
                    for q in range(m):
                        adjoints[root, r * m + q] = ONE / count if present[first + r, q] else ZERO
                    losses[row, first + r] = loss / count * multipliers[k]
                else:
                    adjoints[root, r] = ONE
                    losses[row, first + r] = values[root, r] * multipliers[k]
            for i in range(own.shape[0] - 1, -1, -1):
                if own[i, 3] == 0:
                    continue
                spread_operands(own, shape, i, step, values, slots, n, m)
                if shape[i] & (SPREAD_LEFT | SPREAD_RIGHT):
                    adjoints[slots:] = ZERO
                slot = first_slot + i
                if shape[i] & REDUCES:
                    reduce_backward(
                        step[0, 0], values, adjoints, step[0, 1], slot, clamped[k], present, first, n, m
                    )
                else:
                    backward_step(step, clamped[k], slot, values, adjoints, n * m if shape[i] & WIDE else n)
                gather_adjoints(own, shape, i, adjoints, slots, present, first, n, m)
            chain_wide(used[k], samples, values, adjoints, present, first, n, m)
            for g in range(len(gradients)):
                each = m if GRADIENT_IS_WIDE[g] else 1
                for r in range(n):
                    for q in range(each):
                        gradients[g][row, first + r, q] = (
                            samples[INPUT_COUNT + 1 + g, r * each + q] * multipliers[k]
                        )


@njit(inline="always")
def spread_operands(
    instructions: Ints, shapes: Ints, i: int, step: Ints, values: Floats, spare: int, n: int, m: int
) -> None:
    """Copy an instruction into `step`, its narrow operands spread into the spare slots where they have to be."""
    for part in range(4):
        step[0, part] = instructions[i, part]
    if shapes[i] & SPREAD_LEFT:
        spread(values, instructions[i, 1], spare, n, m)
        step[0, 1] = spare
    if shapes[i] & SPREAD_RIGHT:
        spread(values, instructions[i, 2], spare + 1, n, m)
        step[0, 2] = spare + 1


@njit(inline="always")
def gather_adjoints(
    instructions: Ints,
    shapes: Ints,
    i: int,
    adjoints: Floats,
    spare: int,
    present: Flags,
    first: int,
    n: int,
    m: int,
) -> None:
    """Add the adjoints of spread operands, as far as they are there, to those of the operands."""
    for side in range(2):
        if shapes[i] & (SPREAD_LEFT << side):
            of = instructions[i, 1 + side]
            for r in range(n):
                for q in range(m):
                    if present[first + r, q]:
                        adjoints[of, r] += adjoints[spare + side, r * m + q]
