"""The interpreter of loss programs, before the operator table is written into it.

This file is a template: `gploss.compute.cpu` replaces each line that ends in ``# @name`` by code from the rows of
`gploss.language.operators` and the terminals of a task, stores the result under a hash of all its sources, and
compiles it with numba. What stands here in the place of such a line is what the tables would give for one operator,
and one terminal, sigmoid(score), so that the file also reads, and passes the checks, as it is.

Samples come and go in one array, (INPUT_COUNT + 1 + GRADIENT_COUNT, samples): a row for each input of the task in
its order, the losses, and a row of d loss/d input for each differentiable input. A program is a list of
instructions over slots: first the terminals, then its constants, then one slot an instruction. Values are computed
for a block of samples at a time, forwards; derivatives by one sweep backwards.

`run_block` calls no other function and takes no view of an array: numba would count references at each, which for
short loops costs more than the arithmetic, and makes threads wait for each other.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from numba import njit

REAL = np.float64  # @real
INPUT_COUNT = 1  # @input_count
GRADIENT_COUNT = 1  # @gradient_count
TERMINAL_COUNT = 1  # @terminal_count
CLAMP_LOW = REAL(1e-5)  # @clamp_low
CLAMP_HIGH = REAL(1e5)  # @clamp_high
ZERO = REAL(0)
ONE = REAL(1)
HALF = REAL(0.5)  # @numbers

#: A number, or an array of numbers, of the kind that REAL says.
Real: TypeAlias = Any
Floats = npt.NDArray[Any]
Ints = npt.NDArray[np.int32]
LongInts = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

#: Samples that are computed together: the slots of a program then stay in the fastest caches.
BLOCK = 256


@njit(inline="always")
def exp_single(x: Real) -> Real:
    """Return e to the power of x in float32, within 2 units in the last place.

    Straight arithmetic, so that a loop of it becomes vector instructions; a call of the system's function does not.
    x = n log 2 + r; the exponential of r is a polynomial (Cephes, expf), and 2^n goes into the exponent's bits, in
    two halves, so that results above and below the range come out as infinity, denormal and 0.
    """
    x = np.float32(89) if x > np.float32(89) else x
    x = np.float32(-104) if x < np.float32(-104) else x
    shifted = x * np.float32(1.44269504) + np.float32(12582912)  # 1.5 * 2^23: what it keeps is the whole number n
    n = shifted - np.float32(12582912)
    r = x - n * np.float32(0.693359375) - n * np.float32(-2.12194440e-4)
    p = np.float32(1.9875691500e-4) * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    p = p * (r * r) + r + np.float32(1)
    whole = np.int32(np.float32(shifted).view(np.int32) - np.int32(0x4B400000))
    half = np.int32(whole >> 1)
    low = np.int32((half + 127) << 23).view(np.float32)
    high = np.int32((whole - half + 127) << 23).view(np.float32)
    return p * low * high


@njit(inline="always")
def log_single(x: Real) -> Real:
    """Return the natural logarithm in float32, within 2 units in the last place; NaN below 0.

    x = 2^n (1 + r), 1 + r between the roots of 1/2 and 2; the logarithm of 1 + r is a polynomial (Cephes, logf).
    """
    tiny = x < np.float32(1.17549435e-38)
    bits = np.float32(x * np.float32(8388608) if tiny else x).view(np.int32)
    whole = np.int32(np.int32(bits - np.int32(0x3F3504F3)) >> 23)
    r = np.int32(bits - np.int32(whole << 23)).view(np.float32) - np.float32(1)
    n = np.float32(whole) - (np.float32(23) if tiny else np.float32(0))
    p = np.float32(7.0376836292e-2) * r + np.float32(-1.1514610310e-1)
    p = p * r + np.float32(1.1676998740e-1)
    p = p * r + np.float32(-1.2420140846e-1)
    p = p * r + np.float32(1.4249322787e-1)
    p = p * r + np.float32(-1.6668057665e-1)
    p = p * r + np.float32(2.0000714765e-1)
    p = p * r + np.float32(-2.4999993993e-1)
    p = p * r + np.float32(3.3333331174e-1)
    square = r * r
    p = p * r * square + n * np.float32(-2.12194440e-4) - np.float32(0.5) * square
    result = r + p + n * np.float32(0.693359375)
    result = result if x < np.float32(np.inf) else x
    result = np.float32(np.nan) if x < np.float32(0) else result
    return np.float32(-np.inf) if x == np.float32(0) else result


@njit(inline="always")
def tanh_single(x: Real) -> Real:
    """Return the hyperbolic tangent in float32, within 2 units in the last place (Cephes, tanhf)."""
    size = abs(x)
    far = np.float32(1) - np.float32(2) / (exp_single(size + size) + np.float32(1))
    square = x * x
    p = np.float32(-5.70498872745e-3) * square + np.float32(2.06390887954e-2)
    p = p * square + np.float32(-5.37397155531e-2)
    p = p * square + np.float32(1.33314422036e-1)
    p = p * square + np.float32(-3.33332819422e-1)
    near = p * square * x + x
    far = -far if x < np.float32(0) else far
    return far if size > np.float32(0.625) else near


@njit(inline="always")
def sign(x: Real) -> Real:
    """Return -1, 0 or 1."""
    return (ONE if x > ZERO else ZERO) - (ONE if x < ZERO else ZERO)


@njit(inline="always")
def maximum(a: Real, b: Real) -> Real:
    """Return the larger; NaN where either is NaN."""
    return a if (a > b or a != a) else b


@njit(inline="always")
def minimum(a: Real, b: Real) -> Real:
    """Return the smaller; NaN where either is NaN."""
    return a if (a < b or a != a) else b


@njit(inline="always")
def sigmoid(x: Real) -> Real:
    """Return 1 / (1 + exp(-x))."""
    return ONE / (ONE + exp(-x))


@njit(inline="always")
def log(x: Real) -> Real:
    """Return the natural logarithm; NaN below 0."""
    return np.log(x)  # @log


@njit(inline="always")
def log1p(x: Real) -> Real:
    """Return the logarithm of 1 + x for x above -1, exact where x is small (W. Kahan, HP-15C handbook, 1982)."""
    u = ONE + x
    return log(u) * (x / (u - ONE)) if u != ONE and u < np.inf else (x if u == ONE else u)


@njit(inline="always")
def detach(x: Real) -> Real:
    """Return x; its derivative is written in the operator's row."""
    return x


@njit(inline="always")
def exp(x: Real) -> Real:
    """Return e to the power of x."""
    return np.exp(x)  # @exp


@njit(inline="always")
def sqrt(x: Real) -> Real:
    """Return the square root; NaN below 0."""
    return np.sqrt(x)


@njit(inline="always")
def tanh(x: Real) -> Real:
    """Return the hyperbolic tangent."""
    return np.tanh(x)  # @tanh


@njit(inline="always")
def forward(instructions: Ints, clamped: bool, first_slot: int, values: Floats, n: int) -> None:
    """Compute each instruction's value for n samples.

    Args:
        instructions: (I, 4) int32: opcode, left slot, right slot, which operands need a derivative.
        clamped: whether every value is kept between CLAMP_LOW and CLAMP_HIGH.
        first_slot: slot of the first instruction.
        values: (slots, BLOCK) with terminals and constants filled in; the rest is written.
        n: number of samples, at most BLOCK.
    """
    for i in range(instructions.shape[0]):
        opcode = instructions[i, 0]
        left = instructions[i, 1]
        right = instructions[i, 2]
        slot = first_slot + i
        if opcode < 0:
            continue
        elif opcode == 0:  # @forward
            for j in range(n):
                values[slot, j] = values[left, j] + values[right, j]
        if clamped:
            for j in range(n):
                value = values[slot, j]
                value = CLAMP_LOW if value < CLAMP_LOW else value
                values[slot, j] = CLAMP_HIGH if value > CLAMP_HIGH else value


@njit(inline="always")
def backward(instructions: Ints, clamped: bool, first_slot: int, values: Floats, adjoints: Floats, n: int) -> None:
    """Propagate the derivative of the loss from the root to the terminals.

    Args:
        instructions: as in `forward`.
        clamped: nothing passes where a value stands at a clamp's bound.
        first_slot: slot of the first instruction.
        values: (slots, BLOCK) as `forward` left them.
        adjoints: (slots, BLOCK), zero but for the root's; added to.
        n: number of samples, at most BLOCK.
    """
    for i in range(instructions.shape[0] - 1, -1, -1):
        opcode = instructions[i, 0]
        left = instructions[i, 1]
        right = instructions[i, 2]
        needs = instructions[i, 3]
        slot = first_slot + i
        if needs == 0:
            continue
        if clamped:
            for j in range(n):
                inside = values[slot, j] > CLAMP_LOW and values[slot, j] < CLAMP_HIGH
                adjoints[slot, j] = adjoints[slot, j] if inside else ZERO
        if opcode < 0:
            continue
        elif opcode == 0:  # @backward
            if needs & 1:
                for j in range(n):
                    adjoints[left, j] += adjoints[slot, j] * ONE
            if needs & 2:
                for j in range(n):
                    adjoints[right, j] += adjoints[slot, j] * ONE


@njit(inline="always")
def at(start: int, j: int) -> np.uint64:
    """Return the place of a sample: an unsigned number, for a signed one would be looked at for being negative."""
    return np.uint64(start) + np.uint64(j)


@njit(inline="always")
def terminals(used: int, samples: Floats, start: int, values: Floats, n: int) -> None:
    """Fill in the terminals that a program uses.

    Args:
        used: bit t is set where terminal t occurs.
        samples: (rows, capacity), see above.
        start: the first sample.
        values: (slots, BLOCK), written.
        n: number of samples, at most BLOCK.
    """
    if used & 1:  # @terminals
        for j in range(n):
            values[0, j] = sigmoid(samples[0, at(start, j)])


@njit(inline="always")
def chain(
    used: int, multiplier: Real, samples: Floats, start: int, values: Floats, adjoints: Floats, n: int
) -> None:
    """Collect the derivatives with respect to the inputs from those with respect to the terminals.

    Args:
        used: as in `terminals`.
        multiplier: what the gradients are multiplied with.
        samples: (rows, capacity); the rows of gradients are written.
        start: the first sample.
        values: (slots, BLOCK) of the forward sweep.
        adjoints: (slots, BLOCK) of the backward sweep.
        n: number of samples, at most BLOCK.
    """
    for row in range(INPUT_COUNT + 1, INPUT_COUNT + 1 + GRADIENT_COUNT):
        for j in range(n):
            samples[row, at(start, j)] = ZERO
    if used & 1:  # @chain
        for j in range(n):
            value = values[0, j]
            samples[2, at(start, j)] += adjoints[0, j] * (value * (ONE - value))
    for row in range(INPUT_COUNT + 1, INPUT_COUNT + 1 + GRADIENT_COUNT):
        for j in range(n):
            samples[row, at(start, j)] *= multiplier


@njit(error_model="numpy", nogil=True, cache=True)
def run_block(
    instructions: Ints,
    constants: Floats,
    root: int,
    used: int,
    clamped: bool,
    multiplier: Real,
    samples: Floats,
    start: int,
    n: int,
    values: Floats,
    adjoints: Floats,
) -> None:
    """Run one program on at most BLOCK samples.

    Args:
        instructions: (I, 4) int32, as in `forward`.
        constants: (C,) the program's numbers.
        root: slot of the loss.
        used: bits of the terminals that occur.
        clamped: the program's semantics.
        multiplier: what loss and gradients are multiplied with.
        samples: (rows, capacity), see above: the inputs are read, losses and gradients written.
        start: the first sample.
        n: number of samples.
        values: (slots, BLOCK) workspace.
        adjoints: (slots, BLOCK) workspace.
    """
    terminals(used, samples, start, values, n)
    for c in range(constants.shape[0]):
        for j in range(n):
            values[TERMINAL_COUNT + c, j] = constants[c]
    first_slot = TERMINAL_COUNT + constants.shape[0]
    forward(instructions, clamped, first_slot, values, n)
    for slot in range(TERMINAL_COUNT):
        if used >> slot & 1:
            for j in range(n):
                adjoints[slot, j] = ZERO
    for slot in range(first_slot, first_slot + instructions.shape[0]):  # constants have no derivative
        for j in range(n):
            adjoints[slot, j] = ZERO
    for j in range(n):
        adjoints[root, j] = ONE
        samples[INPUT_COUNT, at(start, j)] = values[root, j] * multiplier
    backward(instructions, clamped, first_slot, values, adjoints, n)
    chain(used, multiplier, samples, start, values, adjoints, n)


@njit(error_model="numpy", nogil=True, cache=True)
def run(
    instructions: Ints,
    instruction_offsets: LongInts,
    constants: Floats,
    constant_offsets: LongInts,
    roots: Ints,
    used: LongInts,
    clamped: Flags,
    multipliers: Floats,
    rows: LongInts,
    inputs: tuple[Floats, ...],
    losses: Floats,
    gradients: Floats,
) -> None:
    """Run the programs named by `rows`, one a row of samples.

    Args:
        instructions: (total, 4) int32 of all programs, one after the other.
        instruction_offsets: (K + 1,) int64.
        constants: (total,) of all programs.
        constant_offsets: (K + 1,) int64.
        roots: (K,) int32 slot of each program's loss.
        used: (K,) int64 bits of the terminals that occur.
        clamped: (K,) bool.
        multipliers: (K,).
        rows: (M,) int64: the program of each row.
        inputs: INPUT_COUNT arrays, (M, N) or (1, N) each.
        losses: (M, N), written.
        gradients: (GRADIENT_COUNT, M, N), written: d loss/d input.
    """
    slots = 1
    for k in range(roots.shape[0]):
        length = instruction_offsets[k + 1] - instruction_offsets[k]
        slots = max(slots, TERMINAL_COUNT + constant_offsets[k + 1] - constant_offsets[k] + length)
    values = np.empty((slots, BLOCK), REAL)
    adjoints = np.empty((slots, BLOCK), REAL)
    samples = np.empty((INPUT_COUNT + 1 + GRADIENT_COUNT, BLOCK), REAL)
    total = losses.shape[1]
    for m in range(rows.shape[0]):
        k = rows[m]
        own = instructions[instruction_offsets[k] : instruction_offsets[k + 1]]
        own_constants = constants[constant_offsets[k] : constant_offsets[k + 1]]
        for start in range(0, total, BLOCK):
            n = min(BLOCK, total - start)
            for i in range(INPUT_COUNT):
                given = inputs[i]
                if m > 0 and given.shape[0] == 1 and total <= BLOCK:
                    continue  # what all rows have in common is there already
                row = m if given.shape[0] > 1 else 0
                for j in range(n):
                    samples[i, j] = given[row, at(start, j)]
            run_block(
                own, own_constants, roots[k], used[k], clamped[k], multipliers[k], samples, 0, n, values, adjoints
            )
            for j in range(n):
                losses[m, at(start, j)] = samples[INPUT_COUNT, j]
            for g in range(GRADIENT_COUNT):
                for j in range(n):
                    gradients[g, m, at(start, j)] = samples[INPUT_COUNT + 1 + g, j]
