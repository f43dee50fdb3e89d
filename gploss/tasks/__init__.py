"""Tasks: what a loss is given of each example, and what screening asks of a loss there. One file a task.

A task names its inputs, the terminals that are made of them, the points at which losses are looked at before
training, and the losses that are known by name. Everything else (grammars, programs, kernels, trainers) follows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from gploss.arguments import each, instance, real_numbers, texts
from gploss.files.plain import digest
from gploss.language.checks import trouble_with_name
from gploss.language.expression import Expression
from gploss.language.terminals import TERMINALS, Terminal
from gploss.registry import Registry, Sent
from gploss.setting import Setting

Floats = npt.NDArray[np.float64]

#: Computes the gradients of R losses with respect to the differentiable inputs, (R, N) each, at N points.
Gradients: TypeAlias = Callable[[Mapping[str, Floats]], Mapping[str, Floats]]

#: Tells which of R losses pull in the right direction, (R,) bool.
Direction: TypeAlias = Callable[[Gradients], npt.NDArray[np.bool_]]


@dataclass(frozen=True)
class Input:
    """One number of each example that a loss is given, or several.

    Args:
        name: as it appears in the formulas of terminals.
        probes: values at which losses are looked at before training; as many for every input of a task. Of a wide
            input each is a list of values, of at least one.
        differentiable: it comes from the model, and training follows the loss's derivative with respect to it; the
            others come from the data.
        altered: as many other values, under which a loss has to have other derivatives; None where it may have the
            same, for it need not depend on the input.
        wide: an example has m values of it, such as scores of m negatives; all wide inputs of a task have as many.

    Raises:
        ValueError: the name cannot be written in a formula, or the probes are none, not finite, or not as many as
            the altered ones.
    """

    name: str
    probes: Sequence[float] | Sequence[Sequence[float]] | Floats
    differentiable: bool = False
    altered: Sequence[float] | Sequence[Sequence[float]] | Floats | None = None
    wide: bool = False

    def __post_init__(self) -> None:
        instance("the name of an input", self.name, str, "a text")
        for name in ("probes", "altered"):
            values = getattr(self, name)
            if values is not None or name == "probes":
                what = f"input {self.name!r}: {name}"
                own = tuple(real_numbers(what, one) for one in values) if self.wide else real_numbers(what, values)
                object.__setattr__(self, name, own)
        trouble = "the derivatives of terminals use it" if self.name == "value" else trouble_with_name(self.name)
        if trouble is not None:
            raise ValueError(f"{self.name!r} is no name of an input: {trouble}")
        if not len(self.probes) or 0 in self.counts:
            raise ValueError(f"input {self.name!r}: give finite probes, at least one")
        if self.altered is not None and _counts(self.altered) != self.counts:
            raise ValueError(
                f"input {self.name!r}: {len(self.altered)} altered values for {len(self.probes)} probes"
            )

    @property
    def counts(self) -> tuple[int, ...]:
        """How many values there are at each probe."""
        return _counts(self.probes)


def _counts(values: Any) -> tuple[int, ...]:
    return tuple(len(value) if isinstance(value, tuple) else 1 for value in values)


@dataclass(frozen=True)
class NamedLoss:
    """A loss that is known by a name.

    Args:
        name: for tables and messages.
        expression: its formula.
        source: where it comes from.
        constants: how its named constants are tuned, those of which more is known than the value.

    Raises:
        ValueError: a constant is declared that the formula does not have, or with another value.
    """

    name: str
    expression: Expression
    source: str = ""
    constants: tuple[Setting, ...] = ()

    def __post_init__(self) -> None:
        own = instance("expression", self.expression, Expression, "an Expression").constants
        for setting in self.constants:
            if own.get(setting.name) != setting.default:
                has = f"has {own[setting.name]:g}" if setting.name in own else "does not have it"
                raise ValueError(
                    f"loss {self.name!r}: {setting.name} is declared as {setting.default:g}, its formula {has}"
                )


@dataclass(frozen=True)
class Task:
    """What a loss is given, and what is asked of it before training.

    Args:
        name: for messages, and on record.
        inputs: what each example has.
        terminals: names from `TERMINALS`: what the text of a loss may use.
        leaves: those terminals, and numbers such as ``"1"``, that the standard grammar draws from, in its order.
        metric: name of the metric that steers where none is chosen.
        losses: hand-made and published losses by name.
        direction: which losses pull in the right direction, a check that is made where it is asked for.
        views: over which inputs a loss of the task is drawn, (G,) each, for each kind of example by its name.

    Raises:
        ValueError: two inputs of one name, inputs with different numbers of probes, none that is differentiable, or
            terminals that do not fit the inputs.
        LookupError: no terminal has that name.
    """

    name: str
    inputs: tuple[Input, ...]
    terminals: tuple[str, ...]
    leaves: tuple[str, ...]
    metric: str
    losses: Registry[NamedLoss] = field(default_factory=lambda: Registry("loss"), compare=False, repr=False)
    direction: Direction | None = None
    views: Mapping[str, Mapping[str, Floats]] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        instance("the name of a task", self.name, str, "a text")
        texts("terminals", self.terminals)
        texts("leaves", self.leaves)
        names = [given.name for given in each("inputs", self.inputs, Input, "an Input")]
        if len(set(names)) < len(names):
            raise ValueError(f"task {self.name!r}: an input occurs twice in {', '.join(names)}")
        if not self.differentiable:
            raise ValueError(f"task {self.name!r}: no input is differentiable, so that no loss could train a model")
        counts = {given.name: len(given.probes) for given in self.inputs}
        if len(set(counts.values())) > 1:
            raise ValueError(f"task {self.name!r}: the inputs have different numbers of probes: {counts}")
        if len({given.counts for given in self.inputs if given.wide}) > 1:
            raise ValueError(f"task {self.name!r}: wide inputs have different numbers of values at a probe")
        self.rows()

    def __getstate__(self) -> dict[str, Any]:
        registered = self.name in TASKS and TASKS[self.name] is self
        since = TASKS.since(self.name) if registered else None
        return {**self.__dict__, "own": (TERMINALS.own(self.terminals), since)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        terminals, since = state.pop("own")
        TERMINALS.receive(terminals)
        self.__dict__.update(state)
        if since is not None:
            TASKS.receive([Sent(self.name, self, since)])

    def what_counts(self) -> tuple[object, ...]:
        """Return all but whether it is registered; see `gploss.files.described`."""
        return (*vars(self).values(), *(row.describe() for row in self.rows()))

    @property
    def differentiable(self) -> tuple[str, ...]:
        """Names of the inputs that come from the model."""
        return tuple(given.name for given in self.inputs if given.differentiable)

    @property
    def wide(self) -> tuple[str, ...]:
        """Names of the inputs of which an example has several values."""
        return tuple(given.name for given in self.inputs if given.wide)

    @property
    def score(self) -> str:
        """Name of the one input that comes from the model.

        Raises:
            ValueError: there are several.
        """
        names = self.differentiable
        if len(names) > 1:
            raise ValueError(
                f"the task {self.name!r} has several inputs that come from the model "
                f"({', '.join(names)}); what trains models with one score cannot train it"
            )
        return names[0]

    def rows(self) -> tuple[Terminal, ...]:
        """Return the terminals as they are registered now.

        Raises:
            ValueError: one is made of something else than the inputs, or lacks a derivative.
            LookupError: one is not registered.
        """
        rows = tuple(TERMINALS[name] for name in self.terminals)
        names = [given.name for given in self.inputs]
        for row in rows:
            for variable in row.value.variables:
                if variable not in names:
                    raise ValueError(
                        f"task {self.name!r}: terminal {row.name!r} is made of {variable!r}, which is none of the "
                        f"inputs ({', '.join(names)})"
                    )
                if variable in self.differentiable and variable not in row.derivatives:
                    raise ValueError(
                        f"task {self.name!r}: terminal {row.name!r} needs a derivative with respect to "
                        f"{variable!r}, which comes from the model"
                    )
        return rows

    @property
    def content_hash(self) -> str:
        """A hash of what results depend on beside the losses: inputs with their probes, formulas of terminals."""
        inputs = [
            (own.name, own.probes, own.differentiable, own.altered, *(["wide"] if own.wide else []))
            for own in self.inputs
        ]
        terminals = [dict(row.describe()) for row in self.rows()]
        return digest(json.dumps([self.name, inputs, terminals], sort_keys=True))

    def arguments(self, expression: Expression) -> tuple[str, ...]:
        """Return what a loss is called with as a function: names of inputs, in the task's order.

        They are those that come from the model, those that every loss depends on, and what this loss uses.

        Raises:
            ValueError: the loss uses a terminal that the task does not have.
        """
        self.check(expression)
        used = {name for row in self.rows() if row.name in expression.terminals for name in row.value.variables}
        used |= {*self.differentiable, *self.required}
        return tuple(given.name for given in self.inputs if given.name in used)

    def check(self, expression: Expression) -> None:
        """Do nothing for a loss whose terminals are the task's.

        Raises:
            ValueError: the loss uses a terminal that the task does not have.
        """
        strange = expression.terminals.difference(self.terminals)
        if strange:
            raise ValueError(
                f"{expression} uses {min(strange)!r}, which the task {self.name!r} does not have; "
                f"it has {', '.join(self.terminals)}"
            )

    def probes(self, altered: str | None = None) -> dict[str, Floats]:
        """Return the points at which losses are looked at: (P,) for each input, (P, M) for each wide one.

        Where a probe has fewer values than M, 0 stands for the missing ones; `present` says where.

        Args:
            altered: name of an input that takes its altered values.
        """
        values = {
            given.name: given.probes if given.altered is None or given.name != altered else given.altered
            for given in self.inputs
        }
        widest = max((max(given.counts) for given in self.inputs), default=1)
        return {
            name: np.array(
                [(*one, *[0.0] * (widest - len(one))) if isinstance(one, tuple) else one for one in column]
            )
            for name, column in values.items()
        }

    @property
    def present(self) -> npt.NDArray[np.bool_] | None:
        """Which values there are at the probes, (P, M) bool; None where all are there."""
        for given in self.inputs:
            if given.wide and len(set(given.counts)) > 1:
                return np.arange(max(given.counts)) < np.array(given.counts)[:, None]
        return None

    @property
    def required(self) -> tuple[str, ...]:
        """Names of the inputs that every loss has to depend on."""
        return tuple(given.name for given in self.inputs if given.altered is not None)

    def with_input(self, given: Input, *terminals: str, name: str | None = None) -> Task:
        """Return a task with one more input.

        Args:
            given: the input.
            terminals: names of registered terminals that are made of it; the standard grammar draws them, too.
            name: of the new task; by default this one's and the input's.

        Raises:
            ValueError: the input or the terminals do not fit.
            LookupError: no terminal has that name.
        """
        instance("given", given, Input, "an Input")
        return replace(
            self,
            name=name or f"{self.name}+{given.name}",
            inputs=(*self.inputs, given),
            terminals=(*self.terminals, *terminals),
            leaves=(*self.leaves, *terminals),
        )


#: Every task by name.
TASKS: Final[Registry[Task]] = Registry("task", module=__name__)
