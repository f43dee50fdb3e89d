"""What modules do with gradients: hooks, functions of their own, parts that are kept out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.utils.checkpoint import checkpoint

from recmodels.models.base import Batch
from tests.recmodels.training.kinds.base import Dot, Kinds, Through

kind = Kinds()


@kind("a lookup under no_grad")
class NoGradLookup(Dot):
    def forward(self, batch: Batch) -> Tensor:
        with torch.no_grad():
            user = self.user(batch.user)
        scores: Tensor = (user * self.item(batch.item)).sum(-1)
        return scores


@kind("a detached lookup")
class Detached(Dot):
    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = (self.user(batch.user).detach() * self.item(batch.item)).sum(-1)
        return scores


@kind("a forward hook on a table")
def hooked_table(n_users: int, n_items: int) -> nn.Module:
    model = Dot(n_users, n_items)
    model.user.register_forward_hook(lambda module, given, rows: rows * 0.5)
    return model


@kind("a forward hook on the whole")
def hooked_whole(n_users: int, n_items: int) -> nn.Module:
    model = Dot(n_users, n_items)
    model.register_forward_hook(lambda module, given, scores: -scores.abs())
    return model


@kind("a hook before a layer")
class HookedBefore(Through):
    def more(self, n_users: int, n_items: int) -> None:
        self.body = nn.Linear(12, 12)
        self.body.register_forward_pre_hook(lambda module, given: (given[0].tanh(),))


@kind("a hook on a weight's gradient")
class WeightHook(Dot):
    def more(self, n_users: int, n_items: int) -> None:
        self.user.weight.register_hook(lambda gradient: gradient * 0.1)


@kind("a hook on a table's gradients")
class BackwardHook(Dot):
    def more(self, n_users: int, n_items: int) -> None:
        self.layer = nn.Linear(6, 6)
        self.layer.register_full_backward_hook(lambda module, given, taken: tuple(own * 0.1 for own in given))

    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = (self.layer(self.user(batch.user)) * self.item(batch.item)).sum(-1)
        return scores


@kind("a hook before a table's gradients")
class BackwardPreHook(Dot):
    def more(self, n_users: int, n_items: int) -> None:
        self.user.register_full_backward_pre_hook(lambda module, given: (given[0] * 0.1,))


@kind("pruned weights")
class Pruned(Through):
    def more(self, n_users: int, n_items: int) -> None:
        self.body = nn.Linear(12, 12)
        prune.random_unstructured(self.body, "weight", 0.5)  # type: ignore[no-untyped-call]


@kind("a hook on an activation's gradient")
class ActivationHook(Dot):
    def forward(self, batch: Batch) -> Tensor:
        rows = self.user(batch.user) * self.item(batch.item)
        if rows.requires_grad:
            rows.register_hook(lambda gradient: gradient.clamp(-1e-3, 1e-3))
        scores: Tensor = rows.sum(-1)
        return scores


class Clip(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.save_for_backward(values)
        return values.clamp(min=-1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * (ctx.saved_tensors[0] > -1)


@kind("an own autograd function")
class OwnFunction(Dot):
    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = Clip.apply(super().forward(batch))  # type: ignore[no-untyped-call]
        return scores


class Reverse(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return -0.3 * gradients[0]


@kind("a gradient reversal that can be mapped")
class Reversed(Dot):
    def forward(self, batch: Batch) -> Tensor:
        reverse: Any = Reverse.apply
        scores: Tensor = (reverse(self.user(batch.user)) * self.item(batch.item)).sum(-1)
        return scores


@kind("rounding that lets gradients through")
class StraightThrough(Dot):
    def forward(self, batch: Batch) -> Tensor:
        rows = self.user(batch.user)
        rows = rows + (torch.round(rows * 4) / 4 - rows).detach()
        scores: Tensor = (rows * self.item(batch.item)).sum(-1)
        return scores


@kind("activations computed again (checkpoint)")
class Checkpointed(Through):
    def more(self, n_users: int, n_items: int) -> None:
        self.body = nn.Sequential(nn.Linear(12, 12), nn.Tanh())

    def forward(self, batch: Batch) -> Tensor:
        body: Any = checkpoint(self.body, self.joined(batch), use_reentrant=False)
        scores: Tensor = self.last(body).squeeze(-1)
        return scores


@kind("a gradient within the score")
class InnerGradient(Dot):
    def forward(self, batch: Batch) -> Tensor:
        with torch.enable_grad():
            user = self.user(batch.user)
            inner = (user * self.item(batch.item)).sum(-1)
            (slope,) = torch.autograd.grad(inner.square().sum(), user, create_graph=True)
        return inner + 0.1 * slope.sum(-1)


@kind("a part that only some batches use")
class SometimesUsed(Dot):
    def more(self, n_users: int, n_items: int) -> None:
        self.layer = nn.Linear(6, 1)

    def forward(self, batch: Batch) -> Tensor:
        scores = super().forward(batch)
        if int(batch.user[0]) % 3 == 0:
            scores = scores + self.layer(self.user(batch.user)).squeeze(-1)
        return scores


@kind("a table frozen after ten batches")
class FrozenLater(Dot):
    met = 0

    def forward(self, batch: Batch) -> Tensor:
        if self.training:
            self.met += 1
        user = self.user(batch.user)
        if self.met > 10:
            user = user.detach()
        scores: Tensor = (user * self.item(batch.item)).sum(-1)
        return scores
