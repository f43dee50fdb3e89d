"""Sixteen float32 numbers as one value in compiled code.

A loop over a row of weights becomes vector instructions only if the compiler can prove, or test at run time, that
rows do not overlap, and for short rows the tests cost more than the arithmetic. These vectors say what is meant:
load, compute, store. They also fix the order of every sum, so that results do not depend on how wide the machine's
own vectors are; multiplications and additions are fused where it can.

Example, in compiled code:
    >>> @njit
    ... def add_row(table, row, other):
    ...     for start in range(0, table.shape[1], LANES):
    ...         store(table, row, start, load(table, row, start) + load(other, row, start))
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import operator
from typing import Any, Final

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

#: Numbers in a vector.
LANES: Final = 16

_REAL: Final = ir.FloatType()
#: The same as LLVM's type.
VECTOR_IR: Final = ir.VectorType(_REAL, LANES)


class _VectorType(types.Type):
    """Numba's type of a vector."""

    def __init__(self) -> None:
        super().__init__(name="Vector16xfloat32")


VECTOR: Final = _VectorType()


@register_model(_VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, numba_type) -> None:
        super().__init__(manager, numba_type, VECTOR_IR)


def _pointer(context, builder, array_type, array, row, column) -> Any:
    """Address of an element of a C-contiguous (rows, columns) array, with no test of the bounds."""
    struct = context.make_array(array_type)(context, builder, array)
    width = builder.extract_value(struct.shape, 1)
    offset = builder.add(builder.mul(row, width), column)
    return builder.bitcast(builder.gep(struct.data, [offset]), VECTOR_IR.as_pointer())


def call_ir(builder, name: str, arguments) -> Any:
    """Call one of LLVM's functions of vectors."""
    kind = ir.FunctionType(VECTOR_IR, [VECTOR_IR] * len(arguments))
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def spread_ir(builder, number) -> Any:
    """Write code for a vector of 16 times the same number."""
    first = builder.insert_element(ir.Constant(VECTOR_IR, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES))


@intrinsic
def load(typing_context, array, row, column):
    """Return 16 neighbours of a 2-d array, from `array[row, column]` on."""

    def generate(context, builder, signature, arguments):
        pointer = _pointer(context, builder, signature.args[0], *arguments)
        return builder.load(pointer, align=4)

    return VECTOR(array, types.intp, types.intp), generate


@intrinsic
def store(typing_context, array, row, column, vector):
    """Write 16 neighbours of a 2-d array, from `array[row, column]` on."""

    def generate(context, builder, signature, arguments):
        pointer = _pointer(context, builder, signature.args[0], *arguments[:3])
        builder.store(arguments[3], pointer, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, VECTOR), generate


def _pointer_flat(context, builder, array_type, array, place) -> Any:
    """Address of an element of a contiguous array of one dimension, with no test of the bounds."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [place]), VECTOR_IR.as_pointer())


@intrinsic
def load_flat(typing_context, array, place):
    """Return 16 neighbours of a 1-d array, from `array[place]` on."""

    def generate(context, builder, signature, arguments):
        return builder.load(_pointer_flat(context, builder, signature.args[0], *arguments), align=4)

    return VECTOR(array, types.intp), generate


@intrinsic
def store_flat(typing_context, array, place, vector):
    """Write 16 neighbours of a 1-d array, from `array[place]` on."""

    def generate(context, builder, signature, arguments):
        pointer = _pointer_flat(context, builder, signature.args[0], *arguments[:2])
        builder.store(arguments[2], pointer, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, VECTOR), generate


@intrinsic
def spread(typing_context, number):
    """Return a vector of 16 times the same number."""

    def generate(context, builder, signature, arguments):
        return spread_ir(builder, arguments[0])

    return VECTOR(types.float32), generate


@intrinsic
def multiply_add(typing_context, a, b, c):
    """Return a * b + c, rounded once where the machine can."""

    def generate(context, builder, signature, arguments):
        return call_ir(builder, "llvm.fmuladd.v16f32", arguments)

    return VECTOR(VECTOR, VECTOR, VECTOR), generate


@intrinsic
def zero_if(typing_context, condition, vector):
    """Return zeros where the condition, a whole number for all 16, is not 0; otherwise the vector."""

    def generate(context, builder, signature, arguments):
        number, vector = arguments
        return builder.select(
            builder.icmp_signed("!=", number, number.type(0)), ir.Constant(VECTOR_IR, None), vector
        )

    return VECTOR(types.int64, VECTOR), generate


@intrinsic
def bounded(typing_context, vector, bound):
    """Return each number, or the bound it exceeds: -bound or bound. NaN stays."""

    def generate(context, builder, signature, arguments):
        value, high = arguments
        low = builder.fneg(high)
        value = builder.select(builder.fcmp_ordered(">", value, high), high, value)
        return builder.select(builder.fcmp_ordered("<", value, low), low, value)

    return VECTOR(VECTOR, VECTOR), generate


@intrinsic
def square_root(typing_context, vector):
    """Return the square root of each number."""

    def generate(context, builder, signature, arguments):
        return call_ir(builder, "llvm.sqrt.v16f32", arguments)

    return VECTOR(VECTOR), generate


@intrinsic
def total(typing_context, vector):
    """Return the sum of all numbers: halves are added to each other until one number is left."""

    def generate(context, builder, signature, arguments):
        value = arguments[0]
        lanes = LANES
        while lanes > 1:
            lanes //= 2
            kind = ir.VectorType(ir.IntType(32), lanes)
            low = builder.shuffle_vector(value, value, ir.Constant(kind, list(range(lanes))))
            high = builder.shuffle_vector(value, value, ir.Constant(kind, list(range(lanes, 2 * lanes))))
            value = builder.fadd(low, high)
        return builder.extract_element(value, ir.Constant(ir.IntType(32), 0))

    return types.float32(VECTOR), generate


def _arithmetic(method: str) -> Any:
    @intrinsic
    def compute(typing_context, a, b):
        def generate(context, builder, signature, arguments):
            return getattr(builder, method)(*arguments)

        return VECTOR(VECTOR, VECTOR), generate

    return compute


_add, _subtract, _multiply, _divide = (_arithmetic(method) for method in ("fadd", "fsub", "fmul", "fdiv"))


def _are_vectors(*operands: types.Type) -> bool:
    return all(isinstance(operand, _VectorType) for operand in operands)


@overload(operator.add, inline="always")
def _overload_add(a, b):
    if _are_vectors(a, b):
        return lambda a, b: _add(a, b)
    return None


@overload(operator.sub, inline="always")
def _overload_subtract(a, b):
    if _are_vectors(a, b):
        return lambda a, b: _subtract(a, b)
    return None


@overload(operator.mul, inline="always")
def _overload_multiply(a, b):
    if _are_vectors(a, b):
        return lambda a, b: _multiply(a, b)
    return None


@overload(operator.truediv, inline="always")
def _overload_divide(a, b):
    if _are_vectors(a, b):
        return lambda a, b: _divide(a, b)
    return None
