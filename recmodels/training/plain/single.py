"""One member: the user's own module, and the protocol's optimiser in plain torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

import numpy as np
import torch

from gploss.compute.losses import LossKernel
from recmodels.models.base import Batch
from recmodels.training.plain.kept import copies, restore
from recmodels.training.plain.lookups import checked_scores
from recmodels.training.protocol import Protocol
from recmodels.training.trainer import State

DENSE: Final = "dense"  # in the optimiser's state: all weights but the row-wise tables, one after the other


class Single:
    """One member: the user's module, and what the protocol's optimiser keeps of it.

    Args:
        module: changed in place.
        fields: the column of ids that each row-wise table is looked up with.
        protocol: optimiser, clipping.
        settings: of the member.

    Raises:
        ValueError: the module has nothing to train.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        fields: Mapping[str, str],
        protocol: Protocol,
        settings: Mapping[str, float],
    ) -> None:
        if protocol.optimizer not in ("sgd", "adagrad"):
            raise ValueError(f"optimizer {protocol.optimizer!r} is known to the fused trainer only; use 'adagrad'")
        self.module = module
        self.fields = fields
        self.protocol = protocol
        self.rate, self.decay = settings["learning_rate"], settings["weight_decay"]
        self.trained = {name: weight for name, weight in module.named_parameters() if weight.requires_grad}
        if not self.trained:
            raise ValueError(f"{type(module).__name__} has no parameter to train")
        self.sums: dict[str, torch.Tensor] = {}
        if protocol.optimizer == "adagrad":
            start = protocol.initial_accumulator
            self.sums = {name: torch.full_like(_real(own.detach()), start) for name, own in self.trained.items()}

    def learn(
        self,
        losses: LossKernel,
        batch: Batch,
        inputs: Mapping[str, torch.Tensor],
        weights: torch.Tensor | None,
    ) -> None:
        """Take one step.

        Args:
            losses: of this member alone.
            batch: ids.
            inputs: (B,) float32 by name: what the loss is given beside the score.
            weights: (B,) float32, or None.
        """
        for parameter in self.module.parameters():
            parameter.grad = None
        scores = checked_scores(self.module(batch), self.module, batch)
        slopes = losses.slopes(scores.detach().float().unsqueeze(0), inputs, weights)[0]
        if scores.requires_grad:
            scores.backward(slopes.to(scores.dtype))  # type: ignore[no-untyped-call]
            self._step(batch)

    @torch.no_grad()
    def _step(self, batch: Batch) -> None:
        clip = self.protocol.gradient_clip
        for name, parameter in self.trained.items():
            if parameter.grad is None:
                continue
            weight = _real(parameter)
            gradient = _real(parameter.grad.to_dense())
            if self.protocol.loss_decay:
                gradient = gradient.add(weight, alpha=2 * self.protocol.loss_decay)
            if clip is not None:
                gradient = gradient.clamp(-clip, clip)
            gradient = gradient.add(weight, alpha=self.decay)
            if name not in self.sums:
                weight.sub_(gradient, alpha=self.rate)
                continue
            squares = self.sums[name]
            if name in self.fields:
                rows = torch.unique(batch[self.fields[name]])
                own = squares[rows].addcmul_(gradient[rows], gradient[rows])
                squares[rows] = own
                weight[rows] -= self.rate * gradient[rows] / own.sqrt()
            else:
                squares.addcmul_(gradient, gradient)
                weight.sub_(self.rate * gradient / squares.sqrt())

    def state(self, epochs: int, origin: int, carried: Collection[str] = ()) -> State:
        """Return weights and optimiser state, of 1 member, on the CPU.

        Args:
            epochs: that the member has behind it.
            origin: seed that its module was made with.
            carried: attributes of the module that go with them.
        """
        optimizer = {name: self.sums[name].cpu().clone() for name in self.fields if name in self.sums}
        if self.sums:
            others = [own.reshape(-1) for name, own in self.sums.items() if name not in self.fields]
            optimizer[DENSE] = torch.cat([*others, torch.empty(0, device=self._device)]).cpu()
        return State(
            copies(self.module, carried),
            {name: own.unsqueeze(0) for name, own in optimizer.items()},
            np.array([epochs], np.int64),
            np.array([origin], np.int64),
        )

    @property
    def _device(self) -> torch.device:
        return next(iter(self.sums.values())).device

    def load(self, start: State, k: int, carried: Collection[str] = ()) -> None:
        """Go on from a state of several.

        Args:
            start: the states.
            k: which of them.
            carried: attributes of the module that may be among the weights.

        Raises:
            ValueError: it is one of another model or optimiser.
        """
        restore(self.module, start.weights, k, carried)
        expected = {name for name in self.sums if name in self.fields} | ({DENSE} if self.sums else set())
        if start.optimizer.keys() != expected:
            raise ValueError("these states belong to another model or optimizer")
        others = [name for name in self.sums if name not in self.fields]
        if self.sums and start.optimizer[DENSE][k].numel() != sum(self.sums[name].numel() for name in others):
            raise ValueError("these states belong to another model or optimizer")
        first = 0
        for name, own in self.sums.items():
            if name in self.fields:
                own.copy_(start.optimizer[name][k])
            else:
                own.copy_(start.optimizer[DENSE][k][first : first + own.numel()].view_as(own))
                first += own.numel()


def _real(tensor: torch.Tensor) -> torch.Tensor:
    """Return a complex tensor's parts, as torch's own optimisers see them."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor
