"""The policy network: a recurrent network that writes formulas step by step, many at a time.

Source: AutoLossGen (SIGIR 2022, arXiv 2204.13160), whose controller follows ENAS (arXiv 1802.03268).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

IMPOSSIBLE = -1e9
"""Logit of a choice that is not allowed: its probability is exactly 0, its gradients stay finite."""

NO_OPERAND = -1
"""Stands in the place of the second operand of a unary operator."""


class Formulas(NamedTuple):
    """What the controller writes: n formulas of the same number of steps.

    A formula's nodes are numbered: terminals first (0 to terminals - 1), then its steps in order. An operand
    is such a number, always of an earlier node. The formula is the node of its last step, and steps that
    it does not reach are not part of it.

    Attributes:
        operators: (n, steps) int64, a position in the list of operators.
        operands: (n, steps, 2) int64, two different nodes, or a node and ``NO_OPERAND``.
    """

    operators: Tensor
    operands: Tensor


class _State(NamedTuple):
    """What an LSTM carries: hidden (n, hidden_size) and cell (n, hidden_size)."""

    hidden: Tensor
    cell: Tensor


class _Draws:
    """Draws from categorical distributions, or replays given draws; adds up log-probability and entropy."""

    def __init__(self, like: Tensor, n: int, generator: torch.Generator | None) -> None:
        self.generator = generator
        self.log_probability = like.new_zeros(n)
        self.entropy = like.new_zeros(n)

    def draw(self, logits: Tensor, given: Tensor | None, counts: Tensor | None = None) -> Tensor:
        """Draw one choice a row from logits (n, choices); rows where ``counts`` is False add nothing."""
        log_probabilities = torch.log_softmax(logits, dim=1)
        probabilities = log_probabilities.exp()
        if given is None:
            choice = torch.multinomial(probabilities, 1, generator=self.generator).squeeze(1)
        else:
            choice = given
        log_probability = log_probabilities.gather(1, choice.unsqueeze(1)).squeeze(1)
        entropy = -(probabilities * log_probabilities).sum(dim=1)
        if counts is not None:
            log_probability, entropy = log_probability * counts, entropy * counts
        self.log_probability = self.log_probability + log_probability
        self.entropy = self.entropy + entropy
        return choice


class Controller(nn.Module):
    """A policy over formulas: one LSTM layer, a head for operators, attention for operands.

    First the LSTM reads the learned start input once a terminal; its hidden states are the terminals'
    anchors. Then every step

    1. reads the mean anchor of the operands chosen one step earlier (at the first step the start
       input), and draws an operator from ``tanh_constant * tanh(W hidden)``;
    2. reads the embedding of that operator; the hidden state is the step's own anchor and, by attention over
       the anchors before it, ``tanh_constant * tanh(-v . tanh(W1 anchor + W2 hidden))`` are the logits of
       the operands. (The authors score "skipped" by ``v . tanh(...)``, "used" by its negative.)

    A binary operator takes two different operands, drawn one after the other without replacement: the
    log-probability is that of the *ordered* draw, log p(first) + log p(second) - log(1 - p(first)), so the
    probabilities of all ordered pairs sum to 1 and operators that do not commute are served, too. Entropy is
    the sum of the entropies of the distributions that were drawn from on the way; its mean over samples
    estimates the entropy of the policy (chain rule).

    What all nodes have in common in ``v . tanh(...)`` says nothing about which one to use, yet it can grow until
    the outer tanh is saturated for all of them: then operands are drawn uniformly and almost no gradient is left.
    With ``centred`` the mean over nodes is subtracted before the outer tanh, which takes that trap away.

    A node's depth is tracked, and no operand is offered whose user would pass ``max_depth``.

    Args:
        arities: for each operator 1 or 2.
        terminals: number of terminals, at least 1.
        steps: operators in a formula, reached or not.
        max_depth: most operators on a path from the last step to a terminal.
        generator: draws the initial weights, uniform in (-0.1, 0.1); torch's own generator is not used.
        hidden_size: units of the LSTM.
        tanh_constant: bound of every logit.
        centred: subtract the mean over nodes from the attention's scores; the authors do not.

    Raises:
        ValueError: a number is out of range, or no operator could be applied to the terminals.

    Example:
        >>> controller = Controller((2, 1), 3, 4, 4, torch.Generator().manual_seed(0))
        >>> formulas, log_probability, entropy = controller.sample(5, torch.Generator().manual_seed(1))
        >>> formulas.operands.shape
        torch.Size([5, 4, 2])
    """

    def __init__(
        self,
        arities: Sequence[int],
        terminals: int,
        steps: int,
        max_depth: int,
        generator: torch.Generator,
        hidden_size: int = 64,
        tanh_constant: float = 1.5,
        centred: bool = False,
    ) -> None:
        super().__init__()
        _check_sizes(arities, terminals, steps, max_depth)
        self.arities = tuple(arities)
        self.terminals = terminals
        self.steps = steps
        self.max_depth = max_depth
        self.tanh_constant = tanh_constant
        self.centred = centred
        self._binary = torch.tensor([arity == 2 for arity in arities])

        def weights(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape).uniform_(-0.1, 0.1, generator=generator))

        operators = len(self.arities)
        self.start_input = weights(hidden_size)
        self.operator_embedding = weights(operators, hidden_size)
        self.operator_head = weights(hidden_size, operators)
        self.lstm_weight = weights(2 * hidden_size, 4 * hidden_size)
        self.lstm_bias = weights(4 * hidden_size)
        self.attention_anchor = weights(hidden_size, hidden_size)
        self.attention_hidden = weights(hidden_size, hidden_size)
        self.attention_vector = weights(hidden_size)

    def sample(self, n: int, generator: torch.Generator) -> tuple[Formulas, Tensor, Tensor]:
        """Draw n formulas; one pass a step serves all of them, and no graph is kept.

        Args:
            n: number of formulas.
            generator: the source of all randomness (on the CPU).

        Returns:
            The formulas, their log-probabilities (n,) and their entropies (n,), in nats.
        """
        with torch.no_grad():
            return self._roll_out(n, generator, None)

    def log_probability_of(self, formulas: Formulas) -> tuple[Tensor, Tensor]:
        """Return log-probabilities (n,) and entropies (n,) of given formulas, differentiable.

        A formula that this policy can never draw has a log-probability of about ``IMPOSSIBLE``.

        Raises:
            ValueError: an index or a shape does not fit this controller.
        """
        self._check(formulas)
        _, log_probability, entropy = self._roll_out(len(formulas.operators), None, formulas)
        return log_probability, entropy

    def _roll_out(
        self, n: int, generator: torch.Generator | None, given: Formulas | None
    ) -> tuple[Formulas, Tensor, Tensor]:
        """Write n formulas, drawn with the generator, or the given ones once more."""
        draws = _Draws(self.start_input, n, generator)
        operators, operands = [], []
        rows = torch.arange(n)
        anchors, state = self._terminal_anchors(n)
        keys = [anchor @ self.attention_anchor for anchor in anchors]
        depths = torch.zeros((n, self.terminals), dtype=torch.int64)
        signal = self.start_input.expand(n, -1)
        for step in range(self.steps):
            known = given.operators[:, step] if given else None
            known_first = given.operands[:, step, 0] if given else None
            # the second choice of a unary operator is drawn (or replayed) for nothing and not counted
            known_second = given.operands[:, step, 1].clamp(min=0) if given else None
            usable = depths < self.max_depth

            state = self._lstm(signal, state)
            operator = draws.draw(self._operator_logits(state.hidden, usable), known)
            binary = self._binary[operator]

            state = self._lstm(self.operator_embedding[operator], state)
            logits = self._operand_logits(torch.stack(keys, dim=1), state.hidden, usable)
            first = draws.draw(logits, known_first)
            others = logits.scatter(1, first.unsqueeze(1), IMPOSSIBLE)
            second = draws.draw(others, known_second, binary)

            other = torch.where(binary, second, first)
            stacked = torch.stack(anchors, dim=1)
            signal = (stacked[rows, first] + stacked[rows, other]) / 2  # of a unary operator: its one anchor
            depth = 1 + torch.maximum(depths[rows, first], depths[rows, other])
            depths = torch.cat([depths, depth.unsqueeze(1)], dim=1)
            anchors.append(state.hidden)
            keys.append(state.hidden @ self.attention_anchor)
            operators.append(operator)
            operands.append(torch.stack([first, torch.where(binary, second, NO_OPERAND)], dim=1))
        formulas = Formulas(torch.stack(operators, dim=1), torch.stack(operands, dim=1))
        return formulas, draws.log_probability, draws.entropy

    def _terminal_anchors(self, n: int) -> tuple[list[Tensor], _State]:
        """Let the LSTM read the start input once a terminal: the same for all samples, so one row does."""
        zeros = self.start_input.new_zeros(1, len(self.start_input))
        state = _State(zeros, zeros)
        anchors = []
        for _ in range(self.terminals):
            state = self._lstm(self.start_input.unsqueeze(0), state)
            anchors.append(state.hidden.expand(n, -1))
        return anchors, _State(state.hidden.expand(n, -1), state.cell.expand(n, -1))

    def _lstm(self, signal: Tensor, state: _State) -> _State:
        """Advance the LSTM by one input (n, hidden_size)."""
        mixed = torch.addmm(self.lstm_bias, torch.cat([signal, state.hidden], dim=1), self.lstm_weight)
        entering, forgetting, leaving, candidate = mixed.chunk(4, dim=1)
        cell = torch.sigmoid(forgetting) * state.cell + torch.sigmoid(entering) * torch.tanh(candidate)
        return _State(torch.sigmoid(leaving) * torch.tanh(cell), cell)

    def _operator_logits(self, hidden: Tensor, usable: Tensor) -> Tensor:
        """Return logits (n, operators); binary operators need two usable operands (n, nodes)."""
        logits = self.tanh_constant * torch.tanh(hidden @ self.operator_head)
        lacking = usable.sum(dim=1, keepdim=True) < 2
        return logits.masked_fill(lacking & self._binary, IMPOSSIBLE)

    def _operand_logits(self, keys: Tensor, hidden: Tensor, usable: Tensor) -> Tensor:
        """Return logits (n, nodes) by attention from hidden (n, hidden_size) over keys (n, nodes, hidden_size)."""
        scores = -torch.tanh(keys + (hidden @ self.attention_hidden).unsqueeze(1)) @ self.attention_vector
        if self.centred:
            scores = scores - scores.mean(dim=1, keepdim=True)
        return (self.tanh_constant * torch.tanh(scores)).masked_fill(~usable, IMPOSSIBLE)

    def _check(self, formulas: Formulas) -> None:
        operators, operands = formulas
        n = len(operators)
        if operators.shape != (n, self.steps) or operands.shape != (n, self.steps, 2):
            raise ValueError(
                f"formulas have operators of shape {tuple(operators.shape)} and operands of shape "
                f"{tuple(operands.shape)}; this controller writes (n, {self.steps}) and (n, {self.steps}, 2)"
            )
        if n == 0:
            return
        if int(operators.min()) < 0 or int(operators.max()) >= len(self.arities):
            raise ValueError(f"an operator of a formula is not one of 0 to {len(self.arities) - 1}")
        nodes = self.terminals + torch.arange(self.steps).unsqueeze(1)
        least = torch.stack([torch.zeros_like(operators), torch.where(self._binary[operators], 0, -1)], dim=2)
        most = torch.where(least < 0, NO_OPERAND, nodes - 1)
        if bool(((operands < least) | (operands > most)).any()):
            raise ValueError(
                "an operand of a formula is no earlier node, or a unary operator has two of them; "
                f"its second place holds {NO_OPERAND}"
            )


def _check_sizes(arities: Sequence[int], terminals: int, steps: int, max_depth: int) -> None:
    if not arities or any(arity not in (1, 2) for arity in arities):
        raise ValueError(f"the controller needs operators of one or two operands, not {list(arities)}")
    if min(terminals, steps, max_depth) < 1:
        raise ValueError(
            f"terminals ({terminals}), steps ({steps}) and max_depth ({max_depth}) have to be at least 1"
        )
    if terminals == 1 and 1 not in arities:
        raise ValueError("binary operators take two different operands and there is one terminal only; add one")
