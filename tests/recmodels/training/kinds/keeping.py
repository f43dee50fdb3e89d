"""What modules keep: buffers, attributes, counters, layers that torch does not know."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from recmodels.models.base import Batch
from tests.recmodels.training.kinds.base import Dot, Kinds

kind = Kinds()


class Centred(Dot):
    """Scores less a running mean of theirs."""

    mean: Tensor

    def more(self, n_users: int, n_items: int) -> None:
        self.register_buffer("mean", torch.zeros(()))

    def follow(self, scores: Tensor) -> None:
        """Move the mean."""

    def forward(self, batch: Batch) -> Tensor:
        scores = super().forward(batch)
        if self.training:
            self.follow(scores.detach().mean())
        return scores - self.mean


@kind("a buffer updated by assignment")
class Assigned(Centred):
    def follow(self, scores: Tensor) -> None:
        self.mean = 0.9 * self.mean + 0.1 * scores


@kind("a buffer updated in place")
class InPlace(Centred):
    def follow(self, scores: Tensor) -> None:
        self.mean.mul_(0.9).add_(scores, alpha=0.1)


@kind("a buffer that is not in the state dict")
class NotPersistent(InPlace):
    def more(self, n_users: int, n_items: int) -> None:
        self.register_buffer("mean", torch.zeros(()), persistent=False)


@kind("a running mean in a plain attribute")
class PlainMean(Assigned):
    def more(self, n_users: int, n_items: int) -> None:
        self.mean = torch.zeros(())


@kind("a counter in a plain attribute")
class Annealed(Dot):
    steps = 0

    def forward(self, batch: Batch) -> Tensor:
        if self.training:
            self.steps += 1
        return super().forward(batch) * min(1.0, 0.2 + 0.05 * self.steps)


@kind("counts in a numpy array")
class CountsInArray(Dot):
    def more(self, n_users: int, n_items: int) -> None:
        self.counts = np.zeros(n_items, np.float32)

    def forward(self, batch: Batch) -> Tensor:
        if self.training:
            np.add.at(self.counts, batch.item.numpy(), 1)
        return super().forward(batch) + 0.1 * torch.from_numpy(np.log1p(self.counts))[batch.item]


@kind("a constant drawn by numpy for an array")
class DrawnByNumpy(Dot):
    def more(self, n_users: int, n_items: int) -> None:
        self.scales = np.random.rand(6).astype(np.float32)  # noqa: NPY002

    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = (self.user(batch.user) * torch.from_numpy(self.scales) * self.item(batch.item)).sum(-1)
        return scores


@kind("a counter in a buffer")
class Counted(Dot):
    steps: Tensor

    def more(self, n_users: int, n_items: int) -> None:
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, batch: Batch) -> Tensor:
        if self.training:
            self.steps += 1
        return super().forward(batch) / (1 + self.steps).sqrt()


@kind("how often each item was met, in a buffer")
class Popular(Dot):
    met: Tensor

    def more(self, n_users: int, n_items: int) -> None:
        self.register_buffer("met", torch.zeros(n_items))

    def forward(self, batch: Batch) -> Tensor:
        if self.training:
            self.met.index_add_(0, batch.item, torch.ones(len(batch.item)))
        return super().forward(batch) + self.met[batch.item].log1p() * 0.1


@kind("a constant drawn for a plain attribute")
class Projected(Dot):
    def more(self, n_users: int, n_items: int) -> None:
        self.projection = torch.randn(6, 6) * 0.5

    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = ((self.user(batch.user) @ self.projection) * self.item(batch.item)).sum(-1)
        return scores


@kind("a layer in a Python list")
class Listed(Dot):
    """Torch does not know the layer, and does not train it."""

    def more(self, n_users: int, n_items: int) -> None:
        self.layers = [nn.Linear(6, 6)]

    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = (self.layers[0](self.user(batch.user)) * self.item(batch.item)).sum(-1)
        return scores


@kind("a function that knows another part")
class Closure(Dot):
    def more(self, n_users: int, n_items: int) -> None:
        self.scale = nn.Parameter(torch.ones(()))
        self.scaled = lambda scores: scores * self.scale

    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = self.scaled(super().forward(batch))
        return scores


@kind("a part that stays in its mode for evaluation")
class StaysInMode(Dot):
    def more(self, n_users: int, n_items: int) -> None:
        self.norm, self.last = nn.BatchNorm1d(12), nn.Linear(12, 1)

    def train(self, mode: bool = True) -> StaysInMode:
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = self.last(self.norm(self.joined(batch)).relu()).squeeze(-1)
        return scores


@kind("a graph in a sparse buffer (LightGCN)")
class LightGCN(nn.Module):
    graph: Tensor

    def __init__(self, n_users: int, n_items: int) -> None:
        super().__init__()
        self.n_users = n_users
        self.table = nn.Embedding(n_users + n_items, 6)
        nn.init.normal_(self.table.weight, std=0.3)
        edges = torch.randint(n_users + n_items, (2, 300))
        size = (n_users + n_items, n_users + n_items)
        self.register_buffer("graph", torch.sparse_coo_tensor(edges, torch.full((300,), 0.1), size).coalesce())

    def forward(self, batch: Batch) -> Tensor:
        layers = [self.table.weight]
        for _ in range(2):
            layers.append(torch.sparse.mm(self.graph, layers[-1]))
        rows = torch.stack(layers).mean(0)
        return (rows[batch.user] * rows[self.n_users + batch.item]).sum(-1)


@kind("a momentum copy of a table in a buffer")
class Momentum(Dot):
    slow: Tensor

    def more(self, n_users: int, n_items: int) -> None:
        self.register_buffer("slow", self.user.weight.detach().clone())

    def forward(self, batch: Batch) -> Tensor:
        if self.training:
            with torch.no_grad():
                self.slow.lerp_(self.user.weight, 0.1)
        return super().forward(batch) + (self.slow[batch.user] * self.item(batch.item)).sum(-1)
