"""Recommender models as they are published, in small."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from recmodels.models.base import Batch
from recmodels.models.mf import MF
from tests.recmodels.training.kinds.base import Dot, Kinds

kind = Kinds()

kind("MF, as it comes")(MF)


@kind("MF, changed by a hook")
def hooked_mf(n_users: int, n_items: int) -> nn.Module:
    model = MF(n_users, n_items, 8, "paper")
    model.register_forward_hook(lambda module, given, scores: -scores.abs())
    return model


@kind("MF, a subclass that does the same")
class SameMF(MF):
    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = self.global_bias + (self.user_embedding(batch.user) * self.item_embedding(batch.item)).sum(
            1
        )
        return scores + (self.user_bias(batch.user) + self.item_bias(batch.item))[:, 0]


@kind("MF, a subclass that clips its scores")
class ClippedMF(MF):
    def forward(self, batch: Batch) -> Tensor:
        return super().forward(batch).clamp(-0.02, 0.02)


@kind("MF, half of one gradient kept back")
def half_mf(n_users: int, n_items: int) -> nn.Module:
    model = MF(n_users, n_items, 8)
    model.user_embedding.weight.register_hook(lambda gradient: gradient * 0.5)
    return model


@kind("MF with max_norm")
def bounded_mf(n_users: int, n_items: int) -> nn.Module:
    model = MF(n_users, n_items, 8)
    model.item_embedding = nn.Embedding(n_items, 8, max_norm=0.01)
    return model


@kind("MF, compiled by torch")
def compiled_mf(n_users: int, n_items: int) -> nn.Module:
    return cast(nn.Module, torch.compile(MF(n_users, n_items, 8), backend="eager"))


@kind("factorisation machine")
class FactorisationMachine(Dot):
    def more(self, n_users: int, n_items: int) -> None:
        self.linear = nn.ModuleList([nn.Embedding(n_users, 1), nn.Embedding(n_items, 1)])
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, batch: Batch) -> Tensor:
        pair = self.pair(batch)
        crossed = 0.5 * (pair.sum(1).square() - pair.square().sum(1)).sum(-1)
        own = self.linear[0](batch.user) + self.linear[1](batch.item) + self.bias
        return crossed + own.squeeze(-1)


@kind("DeepFM")
class DeepFM(FactorisationMachine):
    def more(self, n_users: int, n_items: int) -> None:
        super().more(n_users, n_items)
        self.deep = nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 1))

    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = super().forward(batch) + self.deep(self.joined(batch)).squeeze(-1)
        return scores


@kind("neural collaborative filtering")
class NeuMF(Dot):
    def more(self, n_users: int, n_items: int) -> None:
        self.others = nn.ModuleList([nn.Embedding(n_users, 4), nn.Embedding(n_items, 4)])
        self.tower = nn.Sequential(nn.Linear(8, 6), nn.ReLU())
        self.last = nn.Linear(12, 1)

    def forward(self, batch: Batch) -> Tensor:
        product = self.user(batch.user) * self.item(batch.item)
        deep = self.tower(torch.cat([self.others[0](batch.user), self.others[1](batch.item)], -1))
        scores: Tensor = self.last(torch.cat([product, deep], -1)).squeeze(-1)
        return scores


@kind("wide and deep")
class WideAndDeep(Dot):
    def more(self, n_users: int, n_items: int) -> None:
        self.wide = nn.Embedding(97, 1)
        self.deep = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 1))

    def forward(self, batch: Batch) -> Tensor:
        crossed = (batch.user * 31 + batch.item) % 97
        return (self.wide(crossed) + self.deep(self.joined(batch))).squeeze(-1)


@kind("cross network (DCN)")
class CrossNetwork(Dot):
    def more(self, n_users: int, n_items: int) -> None:
        self.crosses = nn.ModuleList([nn.Linear(12, 12) for _ in range(2)])
        self.last = nn.Linear(12, 1)

    def forward(self, batch: Batch) -> Tensor:
        start = crossed = self.joined(batch)
        for cross in self.crosses:
            crossed = start * cross(crossed) + crossed
        scores: Tensor = self.last(crossed).squeeze(-1)
        return scores


@kind("mixture of experts")
class Experts(Dot):
    def more(self, n_users: int, n_items: int) -> None:
        self.gate = nn.Linear(12, 3)
        self.experts = nn.ModuleList(
            [nn.Sequential(nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 1)) for _ in range(3)]
        )

    def forward(self, batch: Batch) -> Tensor:
        joined = self.joined(batch)
        each = torch.cat([expert(joined) for expert in self.experts], -1)
        scores: Tensor = (torch.softmax(self.gate(joined), -1) * each).sum(-1)
        return scores


@kind("the best of three experts alone")
class SparseExperts(Experts):
    def forward(self, batch: Batch) -> Tensor:
        joined = self.joined(batch)
        weights = torch.softmax(self.gate(joined), -1)
        top, chosen = weights.max(-1)
        scores = torch.zeros(len(joined))
        for number, expert in enumerate(self.experts):
            own = torch.nonzero(chosen == number).squeeze(-1)
            if len(own):
                scores = scores.index_add(0, own, expert(joined[own]).squeeze(-1))
        return scores * top


@kind("two towers, normalised")
class TwoTowers(Dot):
    def more(self, n_users: int, n_items: int) -> None:
        self.towers = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 6)])
        self.temperature = nn.Parameter(torch.tensor(1.0))

    def forward(self, batch: Batch) -> Tensor:
        user = nn.functional.normalize(self.towers[0](self.user(batch.user)), dim=-1)
        item = nn.functional.normalize(self.towers[1](self.item(batch.item)), dim=-1)
        scores: Tensor = (user * item).sum(-1) * self.temperature.exp()
        return scores


@kind("metric learning (CML), rows kept in the unit ball")
class UnitBall(Dot):
    def forward(self, batch: Batch) -> Tensor:
        if self.training:
            with torch.no_grad():
                for table in (self.user, self.item):
                    table.weight.div_(table.weight.norm(dim=-1, keepdim=True).clamp(min=1.0))
        scores: Tensor = 1 - (self.user(batch.user) - self.item(batch.item)).square().sum(-1)
        return scores


@kind("an autoencoder of a user's row")
class AutoRec(nn.Module):
    rated: Tensor

    def __init__(self, n_users: int, n_items: int) -> None:
        super().__init__()
        self.register_buffer("rated", (torch.rand(n_users, n_items) < 0.1).float())
        self.encode, self.decode = nn.Linear(n_items, 5), nn.Linear(5, n_items)

    def forward(self, batch: Batch) -> Tensor:
        decoded = self.decode(self.encode(self.rated[batch.user]).sigmoid())
        scores: Tensor = decoded.gather(1, batch.item.unsqueeze(1)).squeeze(1)
        return scores


@kind("biases alone")
class Biases(nn.Module):
    def __init__(self, n_users: int, n_items: int) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(n_users, 1), nn.Embedding(n_items, 1)

    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = (self.user(batch.user) + self.item(batch.item)).squeeze(-1)
        return scores
