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

# mypy: disable-error-code="untyped-decorator,no-untyped-call"

from __future__ import annotations

import operator
import platform
from typing import Any, Final, TypeAlias

from llvmlite import ir
from numba import extending, types
from numba.core import cgutils
from numba.extending import models, overload, register_model

#: numba's own types say that callers hand over the typing context, which they do not.
intrinsic: Final[Any] = extending.intrinsic

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
#: The same in annotations of compiled code; Python itself never holds one.
Vector: TypeAlias = Any


@register_model(_VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, numba_type: Any) -> None:
        super().__init__(manager, numba_type, VECTOR_IR)


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, row: Any, column: Any) -> Any:
    """Address of an element of a C-contiguous (rows, columns) array, with no test of the bounds."""
    struct = context.make_array(array_type)(context, builder, array)
    width = builder.extract_value(struct.shape, 1)
    offset = builder.add(builder.mul(row, width), column)
    return builder.bitcast(builder.gep(struct.data, [offset]), VECTOR_IR.as_pointer())


def call_ir(builder: Any, name: str, arguments: Any) -> Any:
    """Call one of LLVM's functions of vectors."""
    kind = ir.FunctionType(VECTOR_IR, [VECTOR_IR] * len(arguments))
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def spread_ir(builder: Any, number: Any) -> Any:
    """Write code for a vector of 16 times the same number."""
    first = builder.insert_element(ir.Constant(VECTOR_IR, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES))


@intrinsic
def load(typing_context: Any, array: Any, row: Any, column: Any) -> Any:
    """Return 16 neighbours of a 2-d array, from `array[row, column]` on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], *arguments)
        return builder.load(pointer, align=4)

    return VECTOR(array, types.intp, types.intp), generate


@intrinsic
def store(typing_context: Any, array: Any, row: Any, column: Any, vector: Any) -> Any:
    """Write 16 neighbours of a 2-d array, from `array[row, column]` on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], *arguments[:3])
        builder.store(arguments[3], pointer, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, VECTOR), generate


def _pointer_flat(context: Any, builder: Any, array_type: Any, array: Any, place: Any) -> Any:
    """Address of an element of a contiguous array of one dimension, with no test of the bounds."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [place]), VECTOR_IR.as_pointer())


@intrinsic
def load_flat(typing_context: Any, array: Any, place: Any) -> Any:
    """Return 16 neighbours of a 1-d array, from `array[place]` on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_pointer_flat(context, builder, signature.args[0], *arguments), align=4)

    return VECTOR(array, types.intp), generate


@intrinsic
def store_flat(typing_context: Any, array: Any, place: Any, vector: Any) -> Any:
    """Write 16 neighbours of a 1-d array, from `array[place]` on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer_flat(context, builder, signature.args[0], *arguments[:2])
        builder.store(arguments[2], pointer, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, VECTOR), generate


@intrinsic
def spread(typing_context: Any, number: Any) -> Any:
    """Return a vector of 16 times the same number."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return spread_ir(builder, arguments[0])

    return VECTOR(types.float32), generate


@intrinsic
def multiply_add(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """Return a * b + c, rounded once where the machine can."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return call_ir(builder, "llvm.fmuladd.v16f32", arguments)

    return VECTOR(VECTOR, VECTOR, VECTOR), generate


@intrinsic
def zero_if(typing_context: Any, condition: Any, vector: Any) -> Any:
    """Return zeros where the condition, a whole number for all 16, is not 0; otherwise the vector."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        number, vector = arguments
        return builder.select(
            builder.icmp_signed("!=", number, number.type(0)), ir.Constant(VECTOR_IR, None), vector
        )

    return VECTOR(types.int64, VECTOR), generate


@intrinsic
def bounded(typing_context: Any, vector: Any, bound: Any) -> Any:
    """Return each number, or the bound it exceeds: -bound or bound. NaN stays."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, high = arguments
        low = builder.fneg(high)
        value = builder.select(builder.fcmp_ordered(">", value, high), high, value)
        return builder.select(builder.fcmp_ordered("<", value, low), low, value)

    return VECTOR(VECTOR, VECTOR), generate


@intrinsic
def square_root(typing_context: Any, vector: Any) -> Any:
    """Return the square root of each number."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return call_ir(builder, "llvm.sqrt.v16f32", arguments)

    return VECTOR(VECTOR), generate


@intrinsic
def total(typing_context: Any, vector: Any) -> Any:
    """Return the sum of all numbers: halves are added to each other until one number is left."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
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
    def compute(typing_context: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return getattr(builder, method)(*arguments)

        return VECTOR(VECTOR, VECTOR), generate

    return compute


def _overload(operation: Any, method: str) -> None:
    """Let an operator of Python's compute with vectors."""
    compute = _arithmetic(method)

    @overload(operation, inline="always")
    def choose(a: Any, b: Any) -> Any:
        def of_vectors(a: Any, b: Any) -> Any:
            return compute(a, b)

        return of_vectors if isinstance(a, _VectorType) and isinstance(b, _VectorType) else None


_overload(operator.add, "fadd")
_overload(operator.sub, "fsub")
_overload(operator.mul, "fmul")
_overload(operator.truediv, "fdiv")


_FLUSH_DENORMALS: Final = 0x8040  # bits of the SSE control register: for results, and for operands


def _control_register(builder: Any, name: str, slot: Any) -> None:
    """Call one of the two instructions that move the SSE control register from and to memory."""
    address = builder.bitcast(slot, ir.IntType(8).as_pointer())
    kind = ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer()])
    builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.sse.{name}"), [address])


@intrinsic
def flush_denormals(typing_context: Any) -> Any:
    """Let numbers below 1e-38, which make arithmetic many times slower, be 0; return what `restore_mode` needs.

    On processors without an SSE control register this does nothing.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        slot = cgutils.alloca_once_value(builder, ir.Constant(ir.IntType(32), 0))
        if platform.machine() in ("x86_64", "AMD64"):
            _control_register(builder, "stmxcsr", slot)
            before = builder.load(slot)
            builder.store(builder.or_(before, ir.Constant(ir.IntType(32), _FLUSH_DENORMALS)), slot)
            _control_register(builder, "ldmxcsr", slot)
            builder.store(before, slot)
        return builder.load(slot)

    return types.uint32(), generate


@intrinsic
def restore_mode(typing_context: Any, before: Any) -> Any:
    """Undo `flush_denormals`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        slot = cgutils.alloca_once_value(builder, arguments[0])
        if platform.machine() in ("x86_64", "AMD64"):
            _control_register(builder, "ldmxcsr", slot)
        return context.get_dummy_value()

    return types.void(types.uint32), generate
