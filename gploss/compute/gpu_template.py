"""The interpreter of loss programs for GPUs, before the operator table is written into it.

This file is a template: `gploss.compute.gpu` replaces each line that ends in ``# @name`` by code from the rows
of `gploss.language.operators` and `gploss.language.terminals`, and stores the result under a hash of all its
sources. What stands here in the place of such a line is what the table would give for one row.

It does what `gploss.compute.cpu_template` does, for a block of samples that one program of the GPU holds. Slots
lie in global memory, of which the block's own few kilobytes stay in the nearest cache. Nothing is ever read by
another program; barriers are between the threads of one.
"""

# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl

TERMINAL_COUNT: tl.constexpr = tl.constexpr(1)  # @terminal_count
CLAMP_LOW: tl.constexpr = tl.constexpr(1e-5)  # @clamp_low
CLAMP_HIGH: tl.constexpr = tl.constexpr(1e5)  # @clamp_high


@triton.jit
def op_abs(x: tl.tensor) -> tl.tensor:
    """Return the magnitude."""
    return tl.abs(x)


@triton.jit
def op_sign(x: tl.tensor) -> tl.tensor:
    """Return -1, 0 or 1."""
    return tl.where(x > 0.0, 1.0, 0.0) - tl.where(x < 0.0, 1.0, 0.0)


@triton.jit
def op_maximum(a: tl.tensor, b: tl.tensor) -> tl.tensor:
    """Return the larger; NaN where either is NaN."""
    return tl.where((a > b) | (a != a), a, b)


@triton.jit
def op_minimum(a: tl.tensor, b: tl.tensor) -> tl.tensor:
    """Return the smaller; NaN where either is NaN."""
    return tl.where((a < b) | (a != a), a, b)


@triton.jit
def op_sqrt(x: tl.tensor) -> tl.tensor:
    """Return the square root, correctly rounded; NaN below 0."""
    return tl.sqrt_rn(x)


@triton.jit
def op_exp(x: tl.tensor) -> tl.tensor:
    """Return e to the power of x; the same steps as `exp_single` on the CPU, since the GPU's own is coarser."""
    x = tl.where(x > 89.0, 89.0, x)
    x = tl.where(x < -104.0, -104.0, x)
    shifted = x * 1.44269504 + 12582912.0
    n = shifted - 12582912.0
    r = x - n * 0.693359375 - n * -2.12194440e-4
    p = 1.9875691500e-4 * r + 1.3981999507e-3
    p = p * r + 8.3334519073e-3
    p = p * r + 4.1665795894e-2
    p = p * r + 1.6666665459e-1
    p = p * r + 5.0000001201e-1
    p = p * (r * r) + r + 1.0
    whole = shifted.to(tl.int32, bitcast=True) - 0x4B400000
    half = whole >> 1
    low = ((half + 127) << 23).to(tl.float32, bitcast=True)
    high = ((whole - half + 127) << 23).to(tl.float32, bitcast=True)
    return p * low * high


@triton.jit
def op_log(x: tl.tensor) -> tl.tensor:
    """Return the natural logarithm; NaN below 0; the same steps as `log_single` on the CPU."""
    tiny = x < 1.17549435e-38
    bits = tl.where(tiny, x * 8388608.0, x).to(tl.int32, bitcast=True)
    whole = (bits - 0x3F3504F3) >> 23
    r = (bits - (whole << 23)).to(tl.float32, bitcast=True) - 1.0
    n = whole.to(tl.float32) - tl.where(tiny, 23.0, 0.0)
    p = 7.0376836292e-2 * r + -1.1514610310e-1
    p = p * r + 1.1676998740e-1
    p = p * r + -1.2420140846e-1
    p = p * r + 1.4249322787e-1
    p = p * r + -1.6668057665e-1
    p = p * r + 2.0000714765e-1
    p = p * r + -2.4999993993e-1
    p = p * r + 3.3333331174e-1
    square = r * r
    p = p * r * square + n * -2.12194440e-4 - 0.5 * square
    result = r + p + n * 0.693359375
    result = tl.where(x < float("inf"), result, x)
    result = tl.where(x < 0.0, float("nan"), result)
    return tl.where(x == 0.0, float("-inf"), result)


@triton.jit
def op_log1p(x: tl.tensor) -> tl.tensor:
    """Return the logarithm of 1 + x for x above -1; the same steps as `log1p` on the CPU."""
    u = 1.0 + x
    result = op_log(u) * (x / (u - 1.0))
    return tl.where(u == 1.0, x, tl.where(u < float("inf"), result, u))


@triton.jit
def op_detach(x: tl.tensor) -> tl.tensor:
    """Return x; its derivative is written in the operator's row."""
    return x


@triton.jit
def op_tanh(x: tl.tensor) -> tl.tensor:
    """Return the hyperbolic tangent; the same steps as `tanh_single` on the CPU."""
    size = tl.abs(x)
    far = 1.0 - 2.0 / (op_exp(size + size) + 1.0)
    square = x * x
    p = -5.70498872745e-3 * square + 2.06390887954e-2
    p = p * square + -5.37397155531e-2
    p = p * square + 1.33314422036e-1
    p = p * square + -3.33332819422e-1
    near = p * square * x + x
    return tl.where(size > 0.625, tl.where(x < 0.0, -far, far), near)


@triton.jit
def op_sigmoid(x: tl.tensor) -> tl.tensor:
    """Return 1 / (1 + exp(-x))."""
    return 1.0 / (1.0 + op_exp(-x))


@triton.jit
def derive(
    instructions: tl.tensor,
    instruction_offsets: tl.tensor,
    constants: tl.tensor,
    constant_offsets: tl.tensor,
    roots: tl.tensor,
    used: tl.tensor,
    clamped: tl.tensor,
    multipliers: tl.tensor,
    row: tl.tensor,
    score: tl.tensor,
    inputs: tl.tensor,
    stride: tl.tensor,
    given: tl.tensor,
    inside: tl.tensor,
    slots: tl.tensor,
    adjoints: tl.tensor,
    BLOCK: tl.constexpr,
) -> tl.tensor:
    """Return d loss/d score of a block of samples, multiplied with the loss's multiplier.

    The score is the one input of the task that comes from the model; the others lie in memory.

    Args:
        instructions: (total, 4) int32 of all programs, one after the other.
        instruction_offsets: (K + 1,) int64.
        constants: (total,) float32 of all programs.
        constant_offsets: (K + 1,) int64.
        roots: (K,) int32 slot of each program's loss.
        used: (K,) int64 bits of the terminals that occur.
        clamped: (K,) int32: whether every value is kept between CLAMP_LOW and CLAMP_HIGH.
        multipliers: (K,) float32.
        row: which program.
        score: (BLOCK,) float32.
        inputs: (inputs, stride) float32, from the first sample of the block on: what the losses use but the score.
        stride: elements from one input to the next.
        given: (J,) int32: for each input of the task but the score its row of `inputs`, or -1.
        inside: (BLOCK,) which samples are there.
        slots: (slots, BLOCK) float32 workspace for values.
        adjoints: (slots, BLOCK) float32 workspace for derivatives.
        BLOCK: number of samples.
    """
    place = tl.arange(0, BLOCK)
    first = tl.load(instruction_offsets + row)
    count = (tl.load(instruction_offsets + row + 1) - first).to(tl.int32)
    first_constant = tl.load(constant_offsets + row)
    constant_count = (tl.load(constant_offsets + row + 1) - first_constant).to(tl.int32)
    root = tl.load(roots + row)
    terminals_used = tl.load(used + row)
    is_clamped = tl.load(clamped + row)
    first_slot = TERMINAL_COUNT + constant_count
    code = instructions + first * 4

    input_score = score  # @inputs
    if (terminals_used & 1) != 0:  # @terminals
        tl.store(slots + 0 * BLOCK + place, op_sigmoid(input_score))
    for c in range(constant_count):
        constant = tl.load(constants + first_constant + c)
        tl.store(slots + (TERMINAL_COUNT + c) * BLOCK + place, tl.zeros((BLOCK,), tl.float32) + constant)
    for slot in range(first_slot + count):
        tl.store(adjoints + slot * BLOCK + place, tl.where(slot == root, 1.0, 0.0) + tl.zeros((BLOCK,), tl.float32))
    tl.debug_barrier()

    for i in range(count):
        opcode = tl.load(code + i * 4)
        a = tl.load(slots + tl.load(code + i * 4 + 1) * BLOCK + place)
        b = tl.load(slots + tl.load(code + i * 4 + 2) * BLOCK + place)
        value = a
        if opcode < 0:
            value = b
        elif opcode == 0:  # @forward
            value = a + b
        if is_clamped != 0:
            value = tl.where(value < CLAMP_LOW, CLAMP_LOW, value)
            value = tl.where(value > CLAMP_HIGH, CLAMP_HIGH, value)
        tl.store(slots + (first_slot + i) * BLOCK + place, value)
        tl.debug_barrier()

    for back in range(count):
        i = count - 1 - back
        needs = tl.load(code + i * 4 + 3)
        if needs != 0:
            opcode = tl.load(code + i * 4)
            left = tl.load(code + i * 4 + 1)
            right = tl.load(code + i * 4 + 2)
            a = tl.load(slots + left * BLOCK + place)
            b = tl.load(slots + right * BLOCK + place)
            value = tl.load(slots + (first_slot + i) * BLOCK + place)
            adjoint = tl.load(adjoints + (first_slot + i) * BLOCK + place)
            if is_clamped != 0:
                adjoint = tl.where((value > CLAMP_LOW) & (value < CLAMP_HIGH), adjoint, 0.0)
            to_left = adjoint
            to_right = adjoint
            if opcode < 0:
                to_left = adjoint * 0.0
            elif opcode == 0:  # @backward
                to_left = adjoint * 1.0
                to_right = adjoint * 1.0
            if (needs & 1) != 0:
                own = adjoints + left * BLOCK + place
                tl.store(own, tl.load(own) + to_left)
            tl.debug_barrier()
            if (needs & 2) != 0:
                own = adjoints + right * BLOCK + place
                tl.store(own, tl.load(own) + to_right)
            tl.debug_barrier()

    gradient = tl.zeros((BLOCK,), tl.float32)
    if (terminals_used & 1) != 0:  # @chain
        value = tl.load(slots + 0 * BLOCK + place)
        gradient += tl.load(adjoints + 0 * BLOCK + place) * (value * (1.0 - value))
    return gradient * tl.load(multipliers + row)


@triton.jit(do_not_specialize=["count", "stride", "workspace_size"])
def differentiate(
    instructions: tl.tensor,
    instruction_offsets: tl.tensor,
    constants: tl.tensor,
    constant_offsets: tl.tensor,
    roots: tl.tensor,
    used: tl.tensor,
    clamped: tl.tensor,
    multipliers: tl.tensor,
    rows: tl.tensor,
    scores: tl.tensor,
    inputs: tl.tensor,
    stride: tl.tensor,
    given: tl.tensor,
    weights: tl.tensor,
    count: tl.tensor,
    diverged: tl.tensor,
    slopes: tl.tensor,
    workspace: tl.tensor,
    workspace_size: tl.tensor,
    WEIGHTED: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Differentiate the mean loss of each member with respect to its scores; one GPU program a member.

    A member with a derivative that is not finite is marked, and gets 0 from then on.

    Args:
        instructions: as in `derive`; and so on up to `multipliers`.
        instruction_offsets: as in `derive`.
        constants: as in `derive`.
        constant_offsets: as in `derive`.
        roots: as in `derive`.
        used: as in `derive`.
        clamped: as in `derive`.
        multipliers: as in `derive`.
        rows: (M,) int64: the program of each member.
        scores: (M, count) float32.
        inputs: (inputs, stride) float32: what the losses use but the score.
        stride: as in `derive`.
        given: as in `derive`.
        weights: (count,) float32: what each sample's loss is multiplied with, if WEIGHTED.
        count: number of samples.
        diverged: (M,) int32, read and written.
        slopes: (M, count) float32, written.
        workspace: (M, workspace_size) float32: twice the slots of the longest program, times BLOCK.
        workspace_size: elements of one member's workspace.
        WEIGHTED: whether there are weights.
        BLOCK: samples that are computed together.
    """
    member = tl.program_id(0).to(tl.int64)
    row = tl.load(rows + member)
    own = workspace + member * workspace_size
    adjoints = own + workspace_size // 2
    own_scores = scores + member * count
    own_pulls = slopes + member * count
    place = tl.arange(0, BLOCK)
    bad = tl.load(diverged + member)
    for first in range(0, count, BLOCK):
        inside = first + place < count
        score = tl.load(own_scores + first + place, mask=inside, other=0.0)
        gradient = derive(
            instructions,
            instruction_offsets,
            constants,
            constant_offsets,
            roots,
            used,
            clamped,
            multipliers,
            row,
            score,
            inputs + first,
            stride,
            given,
            inside,
            own,
            adjoints,
            BLOCK,
        )
        if WEIGHTED:
            gradient *= tl.load(weights + first + place, mask=inside, other=0.0)
        bad += tl.sum((inside & (gradient - gradient != 0.0)).to(tl.int32), 0)
        tl.store(own_pulls + first + place, gradient / count, mask=inside)
        tl.debug_barrier()
    if bad != 0:
        tl.store(diverged + member, 1)
        for first in range(0, count, BLOCK):
            tl.store(own_pulls + first + place, tl.zeros((BLOCK,), tl.float32), mask=first + place < count)
