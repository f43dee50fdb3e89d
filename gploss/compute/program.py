"""K expressions as flat arrays: value and derivative of all of them at once.

A program is what trainers, screening and fingerprints see of an expression. It is compiled from the canonical
form, so that formulas which only differ in the order of operands are one and the same computation, bit for bit.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from gploss.arguments import each
from gploss.compute.cpu import load_kernels
from gploss.compute.losses import LossKernel
from gploss.compute.on_tensors import CompiledLosses, DeviceProgram, Run, TritonLosses
from gploss.compute.tables import Tables
from gploss.compute.wide import WideRun, checked_present, in_three, shapes_of
from gploss.language.expression import Expression
from gploss.tasks import Task


@dataclass(frozen=True)
class Program:
    """K compiled losses.

    Attributes:
        task: what the losses are given.
        expressions: the K canonical expressions.
        multipliers: (K,) float64: what each loss is multiplied with (1/s where losses are made scale-free).
        instructions: (total, 4) int32, one row an instruction: opcode, left slot, right slot, and bits that say
            which operands need a derivative.
        instruction_offsets: (K + 1,) int64: the instructions of loss k are rows offsets[k] to offsets[k + 1].
        constants: (total,) float64, with `constant_offsets` (K + 1,) int64 likewise.
        roots: (K,) int32: slot of the loss. Slots are terminals, then constants, then instructions.
        used: (K,) int64: bit t is set where terminal t occurs.
        clamped: (K,) bool: the authors' clamp follows every operator.
        tables: operators, inputs and terminals that opcodes and slots number.
        shapes: (total,) int32, one an instruction: how many values an example has of it and of its operands, see
            `gploss.compute.wide`; 0 in a task without wide inputs.
        root_is_wide: (K,) bool: the loss is the mean over the m values of its slot.
    """

    task: Task
    expressions: tuple[Expression, ...]
    multipliers: npt.NDArray[np.float64]
    instructions: npt.NDArray[np.int32]
    instruction_offsets: npt.NDArray[np.int64]
    constants: npt.NDArray[np.float64]
    constant_offsets: npt.NDArray[np.int64]
    roots: npt.NDArray[np.int32]
    used: npt.NDArray[np.int64]
    clamped: npt.NDArray[np.bool_]
    tables: Tables
    shapes: npt.NDArray[np.int32]
    root_is_wide: npt.NDArray[np.bool_]
    _cast: dict[str, tuple[ModuleType, npt.NDArray[Any], npt.NDArray[Any]]] = field(
        default_factory=dict, repr=False
    )

    @staticmethod
    def compile(
        expressions: Sequence[Expression], task: Task, multipliers: npt.NDArray[np.float64] | None = None
    ) -> Program:
        """Compile expressions.

        Args:
            expressions: K of them, of any semantics, mixed as you like.
            task: what the losses are given.
            multipliers: (K,) what each loss is multiplied with; 1 by default.

        Raises:
            TypeError: they are no list of expressions.
            ValueError: an expression uses a terminal that the task does not have.

        Example:
            >>> from gploss.tasks.pointwise import POINTWISE
            >>> program = Program.compile([Expression.parse("square(label - pred)")], POINTWISE)
            >>> loss, gradients = program.losses({"score": np.array([0.0, 2.0]), "label": np.array([1.0, 0.0])})
            >>> loss.round(3), gradients["score"].round(3)
            (array([[0.25 , 0.776]]), array([[-0.25 ,  0.185]]))
        """
        each("expressions", expressions, Expression, "an Expression, such as Expression.parse(text)")
        canonical = tuple(expression.canonical() for expression in expressions)
        tables = Tables.of(task)
        opcodes = {row.name: (number, row.arity) for number, row in enumerate(tables.operators)}
        terminals = {row.name: number for number, row in enumerate(tables.terminals)}
        differentiable = {
            row.name for row in tables.terminals if not row.derivatives.keys().isdisjoint(tables.differentiable)
        }
        instructions: list[tuple[int, int, int, int]] = []
        instruction_offsets = [0]
        constants: list[float] = []
        constant_offsets = [0]
        roots: list[int] = []
        used: list[int] = []
        shapes: list[int] = []
        root_is_wide: list[bool] = []
        for expression in canonical:
            task.check(expression)
            nodes = expression.nodes()
            done = len(instructions)
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
                    if node.head not in opcodes:
                        raise ValueError(_reduces_nothing(expression, node.head, task))
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
            own_shapes, wide = (
                shapes_of(nodes, tables) if tables.wide else ([0] * (len(instructions) - done), False)
            )
            shapes += own_shapes
            root_is_wide.append(wide)
        return Program(
            task=task,
            expressions=canonical,
            multipliers=np.ones(len(canonical)) if multipliers is None else np.asarray(multipliers, np.float64),
            instructions=np.array(instructions, np.int32).reshape(-1, 4),
            instruction_offsets=np.array(instruction_offsets, np.int64),
            constants=np.array(constants, np.float64),
            constant_offsets=np.array(constant_offsets, np.int64),
            roots=np.array(roots, np.int32),
            used=np.array(used, np.int64),
            clamped=np.array([expression.semantics == "clamped" for expression in canonical], np.bool_),
            tables=tables,
            shapes=np.array(shapes, np.int32),
            root_is_wide=np.array(root_is_wide, np.bool_),
        )

    def __post_init__(self) -> None:
        if self.multipliers.shape != (len(self.expressions),):
            raise ValueError(f"{len(self.expressions)} losses, but multipliers have shape {self.multipliers.shape}")

    def __getstate__(self) -> dict[str, Any]:
        """Leave compiled code behind: another process loads its own."""
        return {**self.__dict__, "_cast": {}}

    def __len__(self) -> int:
        return len(self.expressions)

    @cached_property
    def texts(self) -> list[str]:
        """K texts that name the losses in caches; operators and terminals of a user's own are spelt out."""
        return [self.tables.text_of(expression) for expression in self.expressions]

    def scaled(self, multipliers: npt.NDArray[np.float64]) -> Program:
        """Return the same losses with other multipliers, shape (K,)."""
        return replace(self, multipliers=np.asarray(multipliers, np.float64), _cast={})

    def losses(
        self,
        inputs: Mapping[str, npt.NDArray[Any]],
        rows: npt.NDArray[np.int64] | None = None,
        present: npt.NDArray[np.bool_] | None = None,
    ) -> tuple[npt.NDArray[Any], dict[str, npt.NDArray[Any]]]:
        """Compute losses and their total derivatives with respect to each differentiable input.

        Args:
            inputs: an array for each input of the task: (M, N), or (N,) or (1, N) for all rows alike. Those that no
                loss uses may be left out. The dtype of the differentiable ones, float32 or float64, is computed in.
                Of a wide input of m values (M, N, m), or (N, m) or (1, N, m).
            rows: (M,) which of the K losses each row uses; all K in order by default.
            present: (N, m) which values of wide inputs are there, of each example at least one; all where None.

        Returns:
            Losses (M, N), and d loss/d input (M, N) by input, of a wide one (M, N, m). A NaN or infinity stays in
            its own element.

        Raises:
            ValueError: an input is missing or unknown, the shapes do not fit, or a row names no loss.
        """
        if rows is None:
            rows = np.arange(len(self), dtype=np.int64)
        elif len(rows) and not (rows.min() >= 0 and rows.max() < len(self)):
            raise ValueError(f"rows name losses {rows.min()} to {rows.max()}, but there are {len(self)}")
        self.check_inputs(inputs)
        if self.tables.wide:
            return self._wide_losses(inputs, rows, present)
        scores = [inputs[name] for name in self.tables.differentiable]
        real = np.float32 if all(column.dtype == np.float32 for column in scores) else np.float64
        nothing = np.zeros(scores[0].shape[-1])  # in the place of what no loss uses
        arrays = {
            name: np.ascontiguousarray(np.atleast_2d(inputs.get(name, nothing)), real)
            for name in self.tables.inputs
        }
        self._check_shapes(len(rows), {name: array.shape for name, array in arrays.items()})
        losses, gradients = self.runner(np.ascontiguousarray(rows, np.int64), real)(list(arrays.values()))
        return losses, dict(zip(self.tables.differentiable, gradients, strict=True))

    def _wide_losses(
        self,
        inputs: Mapping[str, npt.NDArray[Any]],
        rows: npt.NDArray[np.int64],
        present: npt.NDArray[np.bool_] | None,
    ) -> tuple[npt.NDArray[Any], dict[str, npt.NDArray[Any]]]:
        """Do what `losses` does where some inputs have several values an example."""
        scores = [inputs[name] for name in self.tables.differentiable]
        real = np.float32 if all(column.dtype == np.float32 for column in scores) else np.float64
        columns = {name: in_three(column, name in self.tables.wide) for name, column in inputs.items()}
        there = checked_present(columns, self.tables, present, len(rows))
        nothing = np.zeros((1, *there.shape))  # in the place of what no loss uses
        arrays = [
            np.ascontiguousarray(
                columns.get(name, nothing if name in self.tables.wide else nothing[:, :, :1]), real
            )
            for name in self.tables.inputs
        ]
        losses, gradients = self.wide_runner(np.ascontiguousarray(rows, np.int64), real)(arrays, there)
        return losses, {
            name: gradient if name in self.tables.wide else gradient[:, :, 0]
            for name, gradient in zip(self.tables.differentiable, gradients, strict=True)
        }

    @cached_property
    def uses(self) -> tuple[str, ...]:
        """Names of the inputs that the losses use, in the task's order; the differentiable ones always are."""
        bits = int(np.bitwise_or.reduce(self.used, initial=0))
        read = set(self.tables.differentiable)
        for slot, row in enumerate(self.tables.terminals):
            if bits >> slot & 1:
                read |= set(row.value.variables)
        return tuple(name for name in self.tables.inputs if name in read)

    def check_inputs(self, names: Collection[str]) -> None:
        """Check that there is every input that the losses use, and no unknown one.

        Args:
            names: of the inputs that are there.

        Raises:
            ValueError: one is missing, or unknown.
        """
        for name in names:
            if name not in self.tables.inputs:
                raise ValueError(
                    f"the task {self.task.name!r} has no input {name!r}; it has {', '.join(self.tables.inputs)}"
                )
        for name in self.uses:
            if name not in names:
                wanted = ", ".join(self.uses)
                raise ValueError(f"the losses use the input {name!r}, which is not there; give {wanted}")

    def runner(self, rows: npt.NDArray[np.int64], real: type[np.floating[Any]] = np.float32) -> Run:
        """Return `losses` for fixed rows without its checks, for who calls it a thousand times.

        Args:
            rows: (M,) which of the K losses each row uses.
            real: dtype of the arrays that the result takes, np.float32 or np.float64; they have to be contiguous,
                (M, N) or (1, N), one for each input of the task in its order.
        """
        kernels, constants, multipliers = self._kernels(real)
        programs = (
            self.instructions, self.instruction_offsets, constants, self.constant_offsets,
            self.roots, self.used, self.clamped, multipliers, rows,
        )  # fmt: skip
        depth = len(self.tables.differentiable)

        def run(inputs: Sequence[npt.NDArray[Any]]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
            losses = np.empty((len(rows), inputs[0].shape[-1]), real)
            gradients = np.empty((depth, *losses.shape), real)
            kernels.run(*programs, tuple(inputs), losses, gradients)
            return losses, gradients

        return run

    def _kernels(self, real: type[np.floating[Any]]) -> tuple[ModuleType, npt.NDArray[Any], npt.NDArray[Any]]:
        """Return compiled code, constants and multipliers of a precision."""
        if real.__name__ not in self._cast:
            kernels = load_kernels("float32" if real is np.float32 else "float64", self.tables)
            with np.errstate(over="ignore"):  # a constant beyond float32 is infinite there
                self._cast[real.__name__] = (kernels, self.constants.astype(real), self.multipliers.astype(real))
        return self._cast[real.__name__]

    def wide_runner(self, rows: npt.NDArray[np.int64], real: type[np.floating[Any]] = np.float32) -> WideRun:
        """Return what `losses` does for fixed rows, without its checks, where some inputs are wide.

        Args:
            rows: (M,) which of the K losses each row uses.
            real: dtype of the arrays that the result takes.
        """
        kernels, constants, multipliers = self._kernels(real)
        programs = (
            self.instructions, self.shapes, self.instruction_offsets, constants, self.constant_offsets,
            self.roots, self.root_is_wide, self.used, self.clamped, multipliers, rows,
        )  # fmt: skip
        wide = [name in self.tables.wide for name in self.tables.differentiable]

        def run(
            inputs: Sequence[npt.NDArray[Any]], present: npt.NDArray[np.bool_]
        ) -> tuple[npt.NDArray[Any], tuple[npt.NDArray[Any], ...]]:
            examples, m = present.shape
            losses = np.empty((len(rows), examples), real)
            gradients = tuple(np.empty((len(rows), examples, m if own else 1), real) for own in wide)
            kernels.run_wide(*programs, tuple(inputs), present, losses, gradients)
            return losses, gradients

        return run

    def kernel(self, rows: Sequence[int], device: torch.device) -> LossKernel:
        """Return what differentiates the losses of A members on a device; see `gploss.compute.losses.Losses`."""
        if device.type == "cpu":
            run = self.runner(np.array(rows, np.int64))
            return CompiledLosses(run, self.tables.inputs, self.task.score, len(rows))
        return TritonLosses(self.on_device(rows, device))

    def on_device(self, rows: Sequence[int], device: torch.device) -> DeviceProgram:
        """Copy the losses to a device.

        Args:
            rows: (A,) which of them each of A members uses.
            device: where to.

        Raises:
            ValueError: the task has several inputs that come from the model.
        """
        arrays: tuple[npt.NDArray[Any], ...] = (
            self.instructions,
            self.instruction_offsets,
            self.constants.astype(np.float32),
            self.constant_offsets,
            self.roots,
            self.used,
            self.clamped.astype(np.int32),
            self.multipliers.astype(np.float32),
        )
        others = [name for name in self.tables.inputs if name != self.task.score]
        uses = tuple(name for name in others if name in self.uses)
        given = [uses.index(name) if name in uses else -1 for name in others]
        # A kernel's argument has to be somewhere, even if there is no constant.
        filled = (array if array.size else np.zeros(1, array.dtype) for array in arrays)
        return DeviceProgram(
            tuple(torch.tensor(array, device=device) for array in filled),
            self.tables,
            torch.tensor(np.asarray(rows, np.int64), device=device),
            self.most_slots,
            uses,
            torch.tensor(given, dtype=torch.int32, device=device),
        )

    @property
    def most_slots(self) -> int:
        """The number of slots that the largest loss needs."""
        sizes = np.diff(self.instruction_offsets) + np.diff(self.constant_offsets)
        return len(self.tables.terminals) + int(sizes.max(initial=0))

    def _check_shapes(self, count: int, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Compiled code checks no bounds."""
        samples = next(iter(shapes.values()))[-1]
        for name, shape in shapes.items():
            if len(shape) != 2 or shape[0] not in (1, count) or shape[1] != samples:
                raise ValueError(
                    f"{name} of shape {shape} for {count} rows of {samples} samples; "
                    f"give ({samples},), (1, {samples}) or ({count}, {samples})"
                )


def _reduces_nothing(expression: Expression, head: str, task: Task) -> str:
    return (
        f"{expression} uses {head!r}, which makes one number of several; the task {task.name!r} has no input of "
        "several values"
    )
