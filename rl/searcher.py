"""The searcher of AutoLossGen: a recurrent policy that writes losses, trained by REINFORCE."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gploss.arguments import real_number, whole_number
from gploss.files.plain import JSON
from gploss.language.expression import Expression
from gploss.language.grammar import Grammar
from gploss.language.operators import OPERATORS
from gploss.search.evaluation import Evaluation
from gploss.search.evaluator import Evaluator
from gploss.search.reward import BaselineFilter
from gploss.search.searcher import SEARCHERS, AskTellSearcher
from rl.controller import Controller, Formulas
from rl.reinforce import add_entropy_bonus, moving_baselines, policy_loss

Row = NDArray[np.int64]
"""One formula, (steps, 3): operator, first operand, second operand, as in `rl.controller.Formulas`."""


class _OneThread:
    """Lets torch use one thread: the controller's matrices are so small that threads only wait for each other.

    The number is the process's own: where searches run in several threads, the first to come lowers it, and the
    last to go puts it back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before = 1

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._before = torch.get_num_threads()
                torch.set_num_threads(1)
            self._inside += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                torch.set_num_threads(self._before)


_one_thread = _OneThread()


class RLSearcher(AskTellSearcher):
    """A controller proposes formulas and learns by REINFORCE which ones are worth proposing.

    Source: AutoLossGen (SIGIR 2022, arXiv 2204.13160) and its code. The controller writes ``grammar.max_size``
    steps; the expression is the last step's node, and steps that it does not reach are no part of it. Every
    proposal counts as a sample: rejected and diverged ones with the value of failure, duplicates with the reward
    of the first one. After each ``samples_per_update`` of them, in the order of their proposal, the weights are
    updated once. Evaluations that were never asked for (known losses, another run's records) are no samples of
    this policy; they move the baseline and change nothing else. The policy runs on the CPU.

    Where it deviates from the authors' code:

    - The LSTM carries its state through both passes of a step. (The code throws away that of the second
      pass, so the network forgets which operator it drew.)
    - The next step reads the mean anchor of the operands chosen, as in ENAS, from which the code comes. (The
      code's mask is inverted: it reads the sum of those *not* chosen, divided by their number plus 1.)
    - Terminals are read in one pass each. (The code draws an operator for each of them, of no
      effect on the formula, and scores it like the others.)
    - A pair of operands is scored as it is drawn, p(first) p(second) / (1 - p(first)), and the entropy of both
      draws counts. (The code redraws until the two differ, but scores p(first) p(second), and one entropy.)
    - The entropy bonus is a number. (In the code a gradient flows through it. Multiplied by the
      log-probability, which is negative, it lowers the entropy that it is meant to keep up.)
    - The baseline starts with the first reward, moves with every sample, failures included, and is subtracted
      before it moves. (In the code it starts at the warm model's AUC, moves with rewards that pass the baseline
      filter, and moves first. The filter itself is ``reward_filter`` here.)
    - Failure is worth what the reward policy says, or -1 under the reward filter. (In the code, always -1.)
    - More is proposed at once than an update takes, to fill the batches of the trainer, so that samples may
      come from a policy that is a few updates old. ``proposals_at_once`` as ``samples_per_update`` avoids that.
    - All weights start uniform in (-0.1, 0.1), and the LSTM has one bias vector. (The code leaves its two bias
      vectors at torch's defaults.)
    - New: terminals, operators and limits of any grammar, the depth limit included; in a grammar with
      constants the numbers of ``constants`` are further terminals, for the policy chooses and cannot invent.

    Args:
        grammar: what may be proposed.
        evaluator: screens, looks up and trains the proposals.
        seed: of the initial weights and of all draws.
        reward_filter: the paper's baseline filter, or None.
        proposals_at_once: how many proposals a run asks for at once.
        hidden_size: units of the LSTM.
        learning_rate: of Adam (betas 0 and 0.999, eps 1e-3).
        samples_per_update: proposals averaged over in one update.
        entropy_weight: reward for one nat of entropy.
        baseline_decay: of the moving average of rewards.
        gradient_norm: gradients are scaled down to this norm.
        constants: numbers on offer beside the grammar's terminals, where it has constants.
        centred: keep the attention from getting stuck, as `rl.controller.Controller` explains; the authors' code
            does not.

    Raises:
        TypeError: a number that counts something is not whole.
        ValueError: a number is out of range, or the grammar has nothing that the controller could write.

    Example:
        >>> searcher = RLSearcher(Grammar.paper(), evaluator, seed=0)  # doctest: +SKIP
        >>> result = searcher.run(budget=1000)  # doctest: +SKIP
    """

    name: ClassVar[str] = "rl"

    def __init__(
        self,
        grammar: Grammar,
        evaluator: Evaluator,
        *,
        seed: int = 0,
        reward_filter: BaselineFilter | None = None,
        proposals_at_once: int = 40,
        hidden_size: int = 64,
        learning_rate: float = 1e-3,
        samples_per_update: int = 10,
        entropy_weight: float = 1e-4,
        baseline_decay: float = 0.99,
        gradient_norm: float = 5.0,
        constants: Sequence[float] = (0.5, 2.0),
        centred: bool = False,
    ) -> None:
        super().__init__(
            grammar, evaluator, seed=seed, reward_filter=reward_filter, proposals_at_once=proposals_at_once
        )
        self.hidden_size = whole_number("hidden_size", hidden_size, least=1)
        self.learning_rate = real_number("learning_rate", learning_rate, above=0.0)
        self.samples_per_update = whole_number("samples_per_update", samples_per_update, least=1)
        self.entropy_weight = real_number("entropy_weight", entropy_weight)
        self.baseline_decay = real_number("baseline_decay", baseline_decay, least=0.0, most=1.0)
        self.gradient_norm = real_number("gradient_norm", gradient_norm, above=0.0)
        self.constants = tuple(real_number("each of constants", constant) for constant in constants)
        self.centred = bool(centred)
        self.baseline: float | None = None

        leaves: list[str | float] = [*grammar.terminals, *(self.constants if grammar.constants else ())]
        self._leaves = tuple(dict.fromkeys(grammar.leaf(leaf) for leaf in leaves))
        self._arities = tuple(OPERATORS[operator].arity for operator in grammar.operators)
        self._generator = torch.Generator().manual_seed(int(self.rng.integers(2**62)))
        self.controller = Controller(
            self._arities,
            len(self._leaves),
            grammar.max_size,
            grammar.max_depth,
            self._generator,
            self.hidden_size,
            centred=self.centred,
        )
        self._optimizer = torch.optim.Adam(
            self.controller.parameters(), lr=self.learning_rate, betas=(0.0, 0.999), eps=1e-3
        )
        self._updates = 0
        self._pending: dict[Expression, deque[Row]] = {}
        self._samples: list[tuple[Row, float]] = []

    def _settings(self) -> dict[str, JSON]:
        return {
            "hidden_size": self.hidden_size,
            "learning_rate": self.learning_rate,
            "samples_per_update": self.samples_per_update,
            "entropy_weight": self.entropy_weight,
            "baseline_decay": self.baseline_decay,
            "gradient_norm": self.gradient_norm,
            "constants": list(self.constants),
            "centred": self.centred,
        }

    def _ask(self, n: int) -> list[Expression]:
        with _one_thread:
            formulas, _, _ = self.controller.sample(n, self._generator)
        rows = torch.cat([formulas.operators.unsqueeze(2), formulas.operands], dim=2).numpy()
        return [self._remember(row) for row in rows]

    def _remember(self, row: Row) -> Expression:
        """Put a formula on the list of those that an evaluation is awaited for."""
        expression = self._expression(row)
        self._pending.setdefault(expression, deque()).append(row)
        return expression

    def _expression(self, row: Row) -> Expression:
        """Build the last step's node of a formula and what it needs."""
        steps = row.tolist()
        first_step = len(self._leaves)
        needed = [False] * len(steps)
        needed[-1] = True
        for step in reversed(range(len(steps))):
            if needed[step]:
                for operand in steps[step][1:]:
                    if operand >= first_step:
                        needed[operand - first_step] = True
        nodes: dict[int, Expression] = dict(enumerate(self._leaves))
        for step, (operator, *operands) in enumerate(steps):
            if needed[step]:
                used = [nodes[operand] for operand in operands[: self._arities[operator]]]
                nodes[first_step + step] = Expression.apply(self.grammar.operators[operator], *used)
        return nodes[first_step + len(steps) - 1]

    def _tell(self, evaluations: Sequence[Evaluation], values: Sequence[float]) -> None:
        for evaluation, value in zip(evaluations, values, strict=True):
            row = self._asked_for(evaluation.expression)
            if row is None:
                _, self.baseline = moving_baselines([value], self.baseline, self.baseline_decay)
                continue
            self._samples.append((row, value))
            if len(self._samples) == self.samples_per_update:
                with _one_thread:
                    self._update()

    def _asked_for(self, expression: Expression) -> Row | None:
        """Take an expression off the list: of equal proposals the oldest one is answered first."""
        rows = self._pending.get(expression)
        if rows is None:
            return None
        row = rows.popleft()
        if not rows:
            del self._pending[expression]
        return row

    def _update(self) -> None:
        """Train the controller once on the samples collected."""
        rows = torch.from_numpy(np.stack([row for row, _ in self._samples]))
        rewards = torch.tensor([value for _, value in self._samples], dtype=torch.float64)
        self._samples.clear()
        log_probabilities, entropies = self.controller.log_probability_of(Formulas(rows[:, :, 0], rows[:, :, 1:]))
        # the average is one of rewards with their bonus, for that is what it is subtracted from
        total = add_entropy_bonus(rewards, entropies, self.entropy_weight).tolist()
        baselines, self.baseline = moving_baselines(total, self.baseline, self.baseline_decay)
        baseline = torch.tensor(baselines, dtype=torch.float64)
        loss = policy_loss(rewards, log_probabilities, baseline, entropies, self.entropy_weight)
        self._optimizer.zero_grad()
        torch.autograd.backward([loss])
        torch.nn.utils.clip_grad_norm_(self.controller.parameters(), self.gradient_norm)
        self._optimizer.step()
        self._updates += 1

    def _state(self) -> dict[str, Any]:
        weights = dict(self.controller.named_parameters())
        moments = {name: self._optimizer.state[weight] for name, weight in weights.items()} if self._updates else {}
        return {
            "weights": {name: _array(weight) for name, weight in weights.items()},
            "first_moments": {name: _array(moment["exp_avg"]) for name, moment in moments.items()},
            "second_moments": {name: _array(moment["exp_avg_sq"]) for name, moment in moments.items()},
            "updates": self._updates,
            "generator": _array(self._generator.get_state()),
            "baseline": self.baseline,
            "pending": self._stack([row for rows in self._pending.values() for row in rows]),
            "samples": self._stack([row for row, _ in self._samples]),
            "values": [value for _, value in self._samples],
        }

    def _load_state(self, state: dict[str, Any]) -> None:
        weights = dict(self.controller.named_parameters())
        updates = int(state["updates"])
        groups = ("weights", "first_moments", "second_moments") if updates else ("weights",)
        # all is read before anything is changed
        loaded = {
            name: [_tensor(state[group], name, weight) for group in groups] for name, weight in weights.items()
        }
        self._updates = updates
        self._optimizer.state.clear()
        for name, weight in weights.items():
            value, *moments = loaded[name]
            with torch.no_grad():
                weight.copy_(value)
            if moments:
                first, second = moments
                step = torch.tensor(float(updates))
                self._optimizer.state[weight] = {"step": step, "exp_avg": first, "exp_avg_sq": second}
        self._generator.set_state(torch.from_numpy(np.array(state["generator"], dtype=np.uint8)))
        self.baseline = state["baseline"]
        self._pending = {}
        for row in np.array(state["pending"], dtype=np.int64):
            self._remember(row)
        samples = np.array(state["samples"], dtype=np.int64)
        self._samples = list(zip(samples, map(float, state["values"]), strict=True))

    def _stack(self, rows: Sequence[Row]) -> Row:
        """Return formulas as one array (n, steps, 3), also when there are none."""
        return np.array(rows, dtype=np.int64).reshape(-1, self.grammar.max_size, 3)


def _array(tensor: Tensor) -> NDArray[Any]:
    return tensor.detach().numpy().copy()


def _tensor(arrays: Mapping[str, NDArray[np.float32]], name: str, like: Tensor) -> Tensor:
    """Return a copy of an array of a state as a tensor.

    Raises:
        ValueError: it is of a controller of another size.
    """
    tensor = torch.from_numpy(np.array(arrays[name], dtype=np.float32))
    if tensor.shape != like.shape:
        raise ValueError(
            f"this state belongs to a controller of another size: {name} has shape {tuple(tensor.shape)}, "
            f"here it has {tuple(like.shape)}; make the searcher with the same arguments"
        )
    return tensor


SEARCHERS.register(RLSearcher.name, RLSearcher)
SEARCHERS.protect([RLSearcher.name])
