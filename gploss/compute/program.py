"""K expressions as flat arrays: value and derivative of all of them at once.

A program is what trainers, screening and fingerprints see of an expression. It is compiled from the canonical
form, so that formulas which only differ in the order of operands are one and the same computation, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from gploss.compute.cpu import load_kernels
from gploss.language.expression import Expression
from gploss.language.operators import OPERATORS, Operator
from gploss.language.terminals import TERMINALS


@dataclass(frozen=True)
class Program:
    """K compiled losses.

    Attributes:
        expressions: the K canonical expressions.
        multipliers: (K,) float64: what each loss is multiplied with (1/s where losses are made scale-free).
        instructions: (total, 4) int32, one row an instruction: opcode, left slot, right slot, and bits that say
            which operands need a derivative.
        instruction_offsets: (K + 1,) int64: the instructions of loss k are rows offsets[k] to offsets[k + 1].
        constants: (total,) float64, with `constant_offsets` (K + 1,) int64 likewise.
        roots: (K,) int32: slot of the loss. Slots are terminals, then constants, then instructions.
        used: (K,) int64: bit t is set where terminal t occurs.
        clamped: (K,) bool: the authors' clamp follows every operator.
        operators: the operators that the opcodes number.
    """

    expressions: tuple[Expression, ...]
    multipliers: npt.NDArray[np.float64]
    instructions: npt.NDArray[np.int32]
    instruction_offsets: npt.NDArray[np.int64]
    constants: npt.NDArray[np.float64]
    constant_offsets: npt.NDArray[np.int64]
    roots: npt.NDArray[np.int32]
    used: npt.NDArray[np.int64]
    clamped: npt.NDArray[np.bool_]
    operators: tuple[Operator, ...]
    _cast: dict[str, tuple[ModuleType, npt.NDArray[Any], npt.NDArray[Any]]] = field(
        default_factory=dict, repr=False
    )

    @staticmethod
    def compile(expressions: Sequence[Expression], multipliers: npt.NDArray[np.float64] | None = None) -> Program:
        """Compile expressions.

        Args:
            expressions: K of them, of any semantics, mixed as you like.
            multipliers: (K,) what each loss is multiplied with; 1 by default.

        Example:
            >>> program = Program.compile([Expression.parse("square(label - pred)")])
            >>> loss, gradient = program.losses(np.array([[0.0, 2.0]]), np.array([1.0, 0.0]))
            >>> loss.round(3), gradient.round(3)
            (array([[0.25 , 0.776]]), array([[-0.25 ,  0.185]]))
        """
        canonical = tuple(expression.canonical() for expression in expressions)
        opcodes = {name: (number, OPERATORS[name].arity) for number, name in enumerate(OPERATORS)}
        terminals = {name: number for number, name in enumerate(TERMINALS)}
        differentiable = {name for name, row in TERMINALS.items() if row.derivative is not None}
        instructions: list[tuple[int, int, int, int]] = []
        instruction_offsets = [0]
        constants: list[float] = []
        constant_offsets = [0]
        roots: list[int] = []
        used: list[int] = []
        for expression in canonical:
            nodes = expression.nodes()
            slots: dict[Expression, int] = {}
            slot = len(terminals)
            bits = 0
            for node in nodes:  # constants come before instructions
                if node.constant is not None:
                    slots[node] = slot
                    constants.append(node.constant)
                    slot += 1
                elif not node.operands:
                    number = terminals[node.head]
                    slots[node] = number
                    bits |= 1 << number
            for node in nodes:
                operands = node.operands
                if operands:
                    code, arity = opcodes[node.head]
                    left = operands[0]
                    right = operands[-1]
                    needs = 0 if left.terminals.isdisjoint(differentiable) else 1
                    if arity == 2 and not right.terminals.isdisjoint(differentiable):
                        needs |= 2
                    instructions.append((code, slots[left], slots[right], needs))
                    slots[node] = slot
                    slot += 1
            instruction_offsets.append(len(instructions))
            constant_offsets.append(len(constants))
            roots.append(slots[expression])
            used.append(bits)
        return Program(
            expressions=canonical,
            multipliers=np.ones(len(canonical)) if multipliers is None else np.asarray(multipliers, np.float64),
            instructions=np.array(instructions, np.int32).reshape(-1, 4),
            instruction_offsets=np.array(instruction_offsets, np.int64),
            constants=np.array(constants, np.float64),
            constant_offsets=np.array(constant_offsets, np.int64),
            roots=np.array(roots, np.int32),
            used=np.array(used, np.int64),
            clamped=np.array([expression.semantics == "clamped" for expression in canonical], np.bool_),
            operators=tuple(row for _, row in OPERATORS.items()),
        )

    def __post_init__(self) -> None:
        if self.multipliers.shape != (len(self.expressions),):
            raise ValueError(f"{len(self.expressions)} losses, but multipliers have shape {self.multipliers.shape}")

    def __getstate__(self) -> dict[str, Any]:
        """Leave compiled code behind: another process loads its own, after `check_operators`."""
        return {**self.__dict__, "_cast": {}}

    def __len__(self) -> int:
        return len(self.expressions)

    def scaled(self, multipliers: npt.NDArray[np.float64]) -> Program:
        """Return the same losses with other multipliers, shape (K,)."""
        return replace(self, multipliers=np.asarray(multipliers, np.float64), _cast={})

    def losses(
        self,
        scores: npt.NDArray[Any],
        labels: npt.NDArray[Any],
        rows: npt.NDArray[np.int64] | None = None,
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Compute losses and their total derivatives with respect to the score.

        Args:
            scores: (M, N), or (1, N) for all rows alike; its dtype, float32 or float64, is computed in.
            labels: (N,), (1, N) or (M, N).
            rows: (M,) which of the K losses each row uses; all K in order by default.

        Returns:
            Losses (M, N) and d loss/d score (M, N). A NaN or infinity stays in its own element.

        Raises:
            ValueError: the shapes do not fit, or a row names no loss.
            RuntimeError: an operator of the program was unregistered since.
        """
        real = np.float32 if scores.dtype == np.float32 else np.float64
        if rows is None:
            rows = np.arange(len(self), dtype=np.int64)
        scores, labels = np.atleast_2d(scores), np.atleast_2d(labels)
        self._check_shapes(len(rows), scores.shape, labels.shape)
        if len(rows) and not (rows.min() >= 0 and rows.max() < len(self)):
            raise ValueError(f"rows name losses {rows.min()} to {rows.max()}, but there are {len(self)}")
        run = self.runner(np.ascontiguousarray(rows, np.int64), real)
        return run(np.ascontiguousarray(scores, real), np.ascontiguousarray(labels, real))

    def runner(
        self, rows: npt.NDArray[np.int64], real: type[np.floating[Any]] = np.float32
    ) -> Callable[[npt.NDArray[Any], npt.NDArray[Any]], tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
        """Return `losses` for fixed rows without its checks, for who calls it a thousand times.

        Args:
            rows: (M,) which of the K losses each row uses.
            real: dtype of the scores and labels that the result takes, np.float32 or np.float64; they have to be
                contiguous, (M, N) or (1, N).

        Raises:
            RuntimeError: an operator of the program was unregistered since.
        """
        if real.__name__ not in self._cast:
            self.check_operators()
            kernels = load_kernels("float32" if real is np.float32 else "float64")
            with np.errstate(over="ignore"):  # a constant beyond float32 is infinite there
                self._cast[real.__name__] = (kernels, self.constants.astype(real), self.multipliers.astype(real))
        kernels, constants, multipliers = self._cast[real.__name__]
        programs = (
            self.instructions, self.instruction_offsets, constants, self.constant_offsets,
            self.roots, self.used, self.clamped, multipliers, rows,
        )  # fmt: skip

        def run(scores: npt.NDArray[Any], labels: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
            losses = np.empty((len(rows), scores.shape[-1]), real)
            gradients = np.empty_like(losses)
            kernels.run(*programs, scores, labels, losses, gradients)
            return losses, gradients

        return run

    def _check_shapes(self, count: int, scores: tuple[int, ...], labels: tuple[int, ...]) -> None:
        """Compiled code checks no bounds."""
        for name, shape in (("scores", scores), ("labels", labels)):
            if len(shape) != 2 or shape[0] not in (1, count) or shape[1] != scores[1]:
                raise ValueError(
                    f"{name} of shape {shape} for {count} rows of {scores[-1]} samples; "
                    f"give ({scores[-1]},), (1, {scores[-1]}) or ({count}, {scores[-1]})"
                )

    def check_operators(self) -> None:
        """Opcodes are places in the operator table; operators that were added since come after."""
        now = tuple(row for _, row in OPERATORS.items())
        if now[: len(self.operators)] != self.operators:
            raise RuntimeError("the operators have changed since this program was compiled; compile it again")
