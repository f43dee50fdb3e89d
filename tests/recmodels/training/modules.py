"""Modules that use their tables in every way that a user may think of."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

from recmodels.data.pointwise import PointwiseProblem
from recmodels.models.base import Batch, ModelFactory
from recmodels.models.deep_model import DeepModel
from tests.recmodels.training.cases import SPLIT

TWO_METRICS = PointwiseProblem(SPLIT, ("auc", "logloss"))


class DotProduct(nn.Module):
    """Base of the models below: rows of two tables, multiplied."""

    def __init__(self, n_users: int, n_items: int, **options: Any) -> None:
        super().__init__()
        self.user = nn.Embedding(n_users, 6, **options)
        self.item = nn.Embedding(n_items, 6, **options)

    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = (self.user(batch.user) * self.item(batch.item)).sum(-1)
        return scores


class UsedTwice(DotProduct):
    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = super().forward(batch) + self.user(batch.user).sum(-1)
        return scores


class Tied(DotProduct):
    def __init__(self, n_users: int, n_items: int) -> None:
        super().__init__(n_users, n_items)
        self.other = nn.Embedding(n_users, 6)
        self.other.weight = self.user.weight

    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = super().forward(batch) + self.other(batch.item % 40).tanh().sum(-1)
        return scores


class OneTableUnderTwoNames(DotProduct):
    def __init__(self, n_users: int, n_items: int) -> None:
        super().__init__(n_users, n_items)
        self.again = self.user

    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = (self.again(batch.user) * self.item(batch.item)).sum(-1)
        return scores


class DerivedIds(DotProduct):
    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = (self.user(batch.user // 2) * self.item(batch.item)).sum(-1)
        return scores


class SwappedIds(DotProduct):
    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = (self.item(batch.user) * self.user(batch.item % 40)).sum(-1)
        return scores


class KeywordArgument(DotProduct):
    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = (self.user(input=batch.user) * self.item(batch.item)).sum(-1)
        return scores


class WeightReadToo(DotProduct):
    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = super().forward(batch) + self.user.weight.square().sum(-1).mean()
        return scores


class LookedUpByFunction(DotProduct):
    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = (nn.functional.embedding(batch.user, self.user.weight) * self.item(batch.item)).sum(-1)
        return scores


class LookedUpBothWays(DotProduct):
    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = super().forward(batch) + nn.functional.embedding(batch.user, self.user.weight).mean(-1)
        return scores


class AsksForTheDevice(DotProduct):
    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = super().forward(batch) + torch.ones(1, device=self.user.weight.device)
        return scores


class TwiceInTraining(DotProduct):
    def forward(self, batch: Batch) -> Tensor:
        scores = super().forward(batch)
        return scores + self.item(batch.item).sum(-1) if self.training else scores


class ScaledTable(nn.Embedding):
    def forward(self, ids: Tensor) -> Tensor:
        scores: Tensor = 3 * super().forward(ids)
        return scores


class OwnTable(DotProduct):
    def __init__(self, n_users: int, n_items: int) -> None:
        super().__init__(n_users, n_items)
        self.user = ScaledTable(n_users, 6)


class Hooked(DotProduct):
    def __init__(self, n_users: int, n_items: int) -> None:
        super().__init__(n_users, n_items)
        self.user.register_forward_hook(lambda module, arguments, rows: rows * 0.5)


class BareParameters(nn.Module):
    def __init__(self, n_users: int, n_items: int) -> None:
        super().__init__()
        self.users = nn.Parameter(torch.randn(n_users, 6))
        self.items = nn.Parameter(torch.randn(n_items, 6))

    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = (self.users[batch.user] * self.items[batch.item]).sum(-1)
        return scores


class NoTables(nn.Module):
    """Linear layers on features that are buffers, one layer used twice, and batch norm without a scale."""

    user_features: Tensor
    item_features: Tensor

    def __init__(self, n_users: int, n_items: int) -> None:
        super().__init__()
        self.register_buffer("user_features", torch.randn(n_users, 5))
        self.register_buffer("item_features", torch.randn(n_items, 5))
        self.shared = nn.Linear(5, 7, bias=False)
        self.norm = nn.BatchNorm1d(7, affine=False)
        self.output = nn.Sequential(nn.LayerNorm(7), nn.Linear(7, 1))

    def forward(self, batch: Batch) -> Tensor:
        joined = self.shared(self.user_features[batch.user]) * self.shared(self.item_features[batch.item])
        scores: Tensor = self.output(self.norm(joined)).squeeze(-1)
        return scores


class Frozen(DotProduct):
    def __init__(self, n_users: int, n_items: int) -> None:
        super().__init__(n_users, n_items)
        self.item.weight.requires_grad_(False)
        self.scale = nn.Parameter(torch.ones(3), requires_grad=False)

    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = super().forward(batch) * self.scale.sum()
        return scores


class UnusedParts(DotProduct):
    def __init__(self, n_users: int, n_items: int) -> None:
        super().__init__(n_users, n_items)
        self.never = nn.Embedding(5, 4)
        self.idle = nn.Linear(3, 3)


class Squeezed(DotProduct):
    """Breaks on batches of one row, as many people's models do."""

    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = (self.user(batch.user) * self.item(batch.item)).sum(-1, keepdim=True).squeeze()
        return scores


class WithDropout(DotProduct):
    def forward(self, batch: Batch) -> Tensor:
        rows = nn.functional.dropout(self.user(batch.user), 0.3, self.training)
        scores: Tensor = (rows * self.item(batch.item)).sum(-1)
        return scores


class ThreeDimensions(DotProduct):
    """A linear layer on (B, 2, 6), as in attention."""

    def __init__(self, n_users: int, n_items: int) -> None:
        super().__init__(n_users, n_items)
        self.mix = nn.Linear(6, 3)

    def forward(self, batch: Batch) -> Tensor:
        pair = torch.stack([self.user(batch.user), self.item(batch.item)], dim=1)
        scores: Tensor = self.mix(pair).prod(1).sum(-1)
        return scores


MODULES: dict[str, ModelFactory] = {
    kind.__name__: kind
    for kind in (
        DotProduct,
        UsedTwice,
        Tied,
        OneTableUnderTwoNames,
        DerivedIds,
        SwappedIds,
        KeywordArgument,
        WeightReadToo,
        LookedUpByFunction,
        LookedUpBothWays,
        AsksForTheDevice,
        TwiceInTraining,
        OwnTable,
        Hooked,
        BareParameters,
        NoTables,
        Frozen,
        UnusedParts,
        Squeezed,
        WithDropout,
        ThreeDimensions,
    )
}
MODULES["padding_idx"] = functools.partial(DotProduct, padding_idx=3)
MODULES["max_norm"] = functools.partial(DotProduct, max_norm=1.5)
MODULES["scale_grad_by_freq"] = functools.partial(DotProduct, scale_grad_by_freq=True)
MODULES["DeepModel without dropout"] = functools.partial(DeepModel, embedding_size=8, dropout=0.0)
MODULES["DeepModel"] = functools.partial(DeepModel, embedding_size=8, initialization="paper")
MODULES["DeepModel of odd sizes"] = functools.partial(DeepModel, embedding_size=5, layers=(7, 3))


class WrongShape(DotProduct):
    def forward(self, batch: Batch) -> Tensor:
        return super().forward(batch).unsqueeze(-1)


class NotATensor(DotProduct):
    def forward(self, batch: Batch) -> Tensor:
        return [super().forward(batch)]  # type: ignore[return-value]


class NothingToTrain(nn.Module):
    def __init__(self, n_users: int, n_items: int) -> None:
        super().__init__()

    def forward(self, batch: Batch) -> Tensor:
        return batch.user.float()
