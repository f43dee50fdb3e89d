"""Linear layers and batch normalisation of many members, compiled for the CPU.

A source of `recmodels.training.compiled.load_compiled`. The matrices of a stack are too small for a general
library's blocking and packing to pay: here the sums stay in vector registers and operands are read where they lie,
about twice as fast as batched calls of MKL or OpenBLAS for 128 x 128 by 128 x 64. Every sum runs over its terms in
their order, so a member's bits do not depend on how many members there are, where in memory it stands, or threads.

Arrays called flat hold the matrices of all members one after the other. Between members' weights there may be other
weights: they come with the distance from one member's to the next one's.
"""

# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import njit, types

from recmodels.training.vectors import (
    LANES,
    VECTOR_IR,
    call_ir,
    intrinsic,
    load_flat,
    multiply_add,
    spread_ir,
    total,
)

Floats = npt.NDArray[np.float32]

_INDEX = ir.IntType(64)


def _block(rows: int, vectors: int) -> Any:
    """Return compiled code for a part of a product: `rows` by `vectors * LANES` sums that stay in registers.

    It is called with a, b, initial and c, flat float32 arrays, with where in them to begin, and with steps:
    c[r, j] = initial[j] + sum over k of a[r, k] * b[k, j].
    """

    @intrinsic
    def compute(
        typing_context: Any,
        a: Any,
        a_first: Any,
        a_row: Any,
        a_step: Any,
        b: Any,
        b_first: Any,
        b_step: Any,
        count: Any,
        initial: Any,
        i_first: Any,
        c: Any,
        c_first: Any,
        c_row: Any,
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            def data(position: int) -> Any:
                kind = signature.args[position]
                return context.make_array(kind)(context, builder, arguments[position]).data

            def at(pointer: Any, offset: Any, vector: int) -> Any:
                place = builder.gep(pointer, [builder.add(offset, _INDEX(LANES * vector))])
                return builder.bitcast(place, VECTOR_IR.as_pointer())

            _, a_first, a_row, a_step, _, b_first, b_step, count, _, i_first, _, c_first, c_row = arguments
            a, b, initial, c = data(0), data(4), data(8), data(10)
            every = range(vectors)
            starts = [builder.add(a_first, builder.mul(a_row, _INDEX(r))) for r in range(rows)]
            first_sums = [builder.load(at(initial, i_first, v), align=4) for v in every]
            before = builder.block
            loop, done = builder.append_basic_block("terms"), builder.append_basic_block("done")
            builder.branch(loop)
            builder.position_at_end(loop)
            k = builder.phi(_INDEX)
            sums = [[builder.phi(VECTOR_IR) for _ in every] for _ in starts]
            row_of_b, step = builder.add(b_first, builder.mul(k, b_step)), builder.mul(k, a_step)
            right = [builder.load(at(b, row_of_b, v), align=4) for v in every]
            new_sums = []
            for start, row in zip(starts, sums, strict=True):
                left = spread_ir(builder, builder.load(builder.gep(a, [builder.add(start, step)])))
                new_sums.append([call_ir(builder, "llvm.fmuladd.v16f32", [left, right[v], row[v]]) for v in every])
            next_k = builder.add(k, _INDEX(1))
            k.add_incoming(_INDEX(0), before)
            k.add_incoming(next_k, loop)
            for row, new_row in zip(sums, new_sums, strict=True):
                for v in every:
                    row[v].add_incoming(first_sums[v], before)
                    row[v].add_incoming(new_row[v], loop)
            builder.cbranch(builder.icmp_signed("<", next_k, count), loop, done)
            builder.position_at_end(done)
            for r, new_row in enumerate(new_sums):
                place = builder.add(c_first, builder.mul(c_row, _INDEX(r)))
                for v in every:
                    builder.store(new_row[v], at(c, place, v), align=4)
            return context.get_dummy_value()

        whole = types.intp
        return types.void(
            a, whole, whole, whole, b, whole, whole, whole, initial, whole, c, whole, whole
        ), generate  # fmt: skip

    return compute


_ROWS = 8
_block_8x2, _block_1x2, _block_8x1, _block_1x1 = _block(8, 2), _block(1, 2), _block(8, 1), _block(1, 1)

compiled = njit(error_model="numpy", nogil=True, cache=True)


@njit(error_model="numpy", nogil=True)
def _product(
    a: Floats,
    a_first: int,
    a_row: int,
    a_step: int,
    b: Floats,
    b_first: int,
    initial: Floats,
    i_first: int,
    c: Floats,
    c_first: int,
    rows: int,
    columns: int,
    count: int,
) -> None:
    """Write c[r, j] = initial[j] + sum over k of a[r, k] * b[k, j]; b and c have rows of `columns` numbers."""
    if columns == 1 and a_step == 1 and count % LANES == 0:
        for r in range(rows):
            sums = load_flat(a, a_first + r * a_row) * load_flat(b, b_first)
            for k in range(LANES, count, LANES):
                sums = multiply_add(load_flat(a, a_first + r * a_row + k), load_flat(b, b_first + k), sums)
            c[c_first + r] = initial[i_first] + total(sums)
        return
    j = 0
    while j + LANES <= columns:
        wide = j + 2 * LANES <= columns
        r = 0
        while r < rows:
            at_a, at_b, at_i, at_c = a_first + r * a_row, b_first + j, i_first + j, c_first + r * columns + j
            many = r + _ROWS <= rows
            if many and wide:
                _block_8x2(a, at_a, a_row, a_step, b, at_b, columns, count, initial, at_i, c, at_c, columns)
            elif many:
                _block_8x1(a, at_a, a_row, a_step, b, at_b, columns, count, initial, at_i, c, at_c, columns)
            elif wide:
                _block_1x2(a, at_a, a_row, a_step, b, at_b, columns, count, initial, at_i, c, at_c, columns)
            else:
                _block_1x1(a, at_a, a_row, a_step, b, at_b, columns, count, initial, at_i, c, at_c, columns)
            r += _ROWS if many else 1
        j += 2 * LANES if wide else LANES
    for r in range(rows):
        for last in range(j, columns):
            one = initial[i_first + last]
            for k in range(count):
                one += a[a_first + r * a_row + k * a_step] * b[b_first + k * columns + last]
            c[c_first + r * columns + last] = one


@compiled
def affine(
    rows: Floats,
    weight: Floats,
    weight_stride: int,
    bias: Floats,
    bias_stride: int,
    members: int,
    count: int,
    inputs: int,
    outputs: int,
    turned: Floats,
    result: Floats,
) -> None:
    """Write rows @ weight.T + bias.

    Args:
        rows: flat (members, count, inputs) float32.
        weight: flat (members, outputs, inputs).
        weight_stride: from one member's weight to the next one's.
        bias: flat (members, outputs).
        bias_stride: likewise.
        members: M.
        count: rows of each member.
        inputs: columns of the rows.
        outputs: columns of the result.
        turned: (inputs * outputs,) to work with.
        result: flat (members, count, outputs), written.
    """
    for m in range(members):
        for k in range(inputs):
            for j in range(outputs):
                turned[k * outputs + j] = weight[m * weight_stride + j * inputs + k]
        first, own = m * count * inputs, m * count * outputs
        _product(
            rows, first, inputs, 1, turned, 0, bias, m * bias_stride, result, own, count, outputs, inputs
        )  # fmt: skip


@compiled
def affine_gradients(
    gradient: Floats,
    rows: Floats,
    weight: Floats,
    weight_stride: int,
    members: int,
    count: int,
    inputs: int,
    outputs: int,
    zeros: Floats,
    to_rows: Floats,
    to_weight: Floats,
    to_bias: Floats,
) -> None:
    """Write the gradients of `affine`; arguments as there.

    Args:
        gradient: flat (members, count, outputs), of the result.
        rows: as above.
        weight: as above.
        weight_stride: as above.
        members: as above.
        count: as above.
        inputs: as above.
        outputs: as above.
        zeros: (inputs,) of zeros.
        to_rows: flat (members, count, inputs), written; not if it is empty.
        to_weight: flat (members, outputs, inputs), written.
        to_bias: flat (members, outputs), written.
    """
    for m in range(members):
        own, first = m * count * outputs, m * count * inputs
        at_weight = m * outputs * inputs
        _product(gradient, own, 1, outputs, rows, first, zeros, 0, to_weight, at_weight, outputs, inputs, count)
        if to_rows.size:
            own_weight = m * weight_stride
            _product(
                gradient, own, outputs, 1, weight, own_weight, zeros, 0, to_rows, first, count, inputs, outputs
            )  # fmt: skip
        for j in range(outputs):
            to_bias[m * outputs + j] = 0
        for b in range(count):
            for j in range(outputs):
                to_bias[m * outputs + j] += gradient[own + b * outputs + j]


@compiled
def normalise(
    values: Floats,
    weight: Floats,
    bias: Floats,
    eps: np.float32,
    mean: Floats,
    variance: Floats,
    spread: Floats,
    result: Floats,
) -> None:
    """Write batch normalisation (Ioffe and Szegedy, 2015), and what its gradient and running averages need.

    Args:
        values: (M, B, channels) float32.
        weight: (M, channels).
        bias: (M, channels).
        eps: float32, added to the variance.
        mean: (M, channels), written.
        variance: (M, channels), written; divided by B.
        spread: (M, channels), written: 1 / standard deviation.
        result: (M, B, channels), written.
    """
    members, count, channels = values.shape
    share = np.float32(1) / np.float32(count)
    for m in range(members):
        for c in range(channels):
            mean[m, c] = 0
            variance[m, c] = 0
        for b in range(count):
            for c in range(channels):
                mean[m, c] += values[m, b, c]
        for c in range(channels):
            mean[m, c] *= share
        for b in range(count):
            for c in range(channels):
                away = values[m, b, c] - mean[m, c]
                variance[m, c] += away * away
        for c in range(channels):
            variance[m, c] *= share
            spread[m, c] = np.float32(1) / np.sqrt(variance[m, c] + eps)
        for b in range(count):
            for c in range(channels):
                standard = (values[m, b, c] - mean[m, c]) * spread[m, c]
                result[m, b, c] = standard * weight[m, c] + bias[m, c]


@compiled
def normalise_gradients(
    gradient: Floats,
    values: Floats,
    weight: Floats,
    mean: Floats,
    spread: Floats,
    to_values: Floats,
    to_weight: Floats,
    to_bias: Floats,
) -> None:
    """Write the gradients of `normalise` (section 3 of its source); arguments as there.

    Args:
        gradient: (M, B, channels), of the result.
        values: as above.
        weight: as above.
        mean: as above.
        spread: as above.
        to_values: (M, B, channels), written.
        to_weight: (M, channels), written.
        to_bias: (M, channels), written.
    """
    members, count, channels = values.shape
    share = np.float32(1) / np.float32(count)
    for m in range(members):
        for c in range(channels):
            to_weight[m, c] = 0
            to_bias[m, c] = 0
        for b in range(count):
            for c in range(channels):
                pull = gradient[m, b, c]
                to_bias[m, c] += pull
                to_weight[m, c] += pull * ((values[m, b, c] - mean[m, c]) * spread[m, c])
        for b in range(count):
            for c in range(channels):
                standard = (values[m, b, c] - mean[m, c]) * spread[m, c]
                centred = gradient[m, b, c] - (standard * to_weight[m, c] + to_bias[m, c]) * share
                to_values[m, b, c] = centred * (spread[m, c] * weight[m, c])
