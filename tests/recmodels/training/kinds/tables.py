"""Tables of embeddings in every shape, and lookups of every kind."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from recmodels.models.base import Batch
from tests.recmodels.training.kinds.base import Dot, Kinds
from tests.recmodels.training.modules import MODULES, DotProduct

kind = Kinds()

for _name, _text in {
    "DotProduct": "two tables",
    "UsedTwice": "a table looked up twice",
    "Tied": "two tables with one weight",
    "OneTableUnderTwoNames": "one table under two names",
    "DerivedIds": "ids divided before the lookup",
    "SwappedIds": "tables looked up with each other's ids",
    "WeightReadToo": "a table's weight read beside the lookup",
    "LookedUpByFunction": "a lookup by function",
    "TwiceInTraining": "a second lookup in training alone",
    "OwnTable": "an own kind of table",
    "BareParameters": "bare parameters, indexed",
    "NoTables": "features as buffers",
    "Frozen": "a frozen table",
    "UnusedParts": "parts that are never used",
    "Squeezed": "squeeze() of all dimensions",
    "WithDropout": "dropout by function",
    "ThreeDimensions": "a layer on three dimensions",
    "padding_idx": "padding_idx",
    "max_norm": "max_norm",
    "scale_grad_by_freq": "scale_grad_by_freq",
    "DeepModel": "DeepModel, as it comes",
}.items():
    kind(_text)(MODULES[_name])

kind("sparse gradients")(functools.partial(DotProduct, sparse=True))


@kind("pretrained vectors, trained on")
def pretrained(n_users: int, n_items: int) -> nn.Module:
    model = Dot(n_users, n_items)
    model.item = nn.Embedding.from_pretrained(_VECTORS[:n_items].clone(), freeze=False)
    return model


@kind("pretrained vectors, frozen")
def pretrained_frozen(n_users: int, n_items: int) -> nn.Module:
    model = Dot(n_users, n_items)
    model.item = nn.Embedding.from_pretrained(_VECTORS[:n_items])
    return model


_VECTORS = torch.randn(500, 6, generator=torch.Generator().manual_seed(3)) * 0.3


@kind("an embedding bag over a history")
class Bag(Dot):
    """Each user's history is five items."""

    history: Tensor

    def more(self, n_users: int, n_items: int) -> None:
        self.bag = nn.EmbeddingBag(n_items, 6, mode="mean")
        self.register_buffer("history", torch.randint(n_items, (n_users, 5)))

    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = (self.bag(self.history[batch.user]) * self.item(batch.item)).sum(-1)
        return scores


@kind("attention over a history")
class AttentiveHistory(Bag):
    def more(self, n_users: int, n_items: int) -> None:
        self.register_buffer("history", torch.randint(n_items, (n_users, 5)))

    def forward(self, batch: Batch) -> Tensor:
        target, past = self.item(batch.item), self.item(self.history[batch.user])
        weights = torch.softmax(torch.einsum("bd,bhd->bh", target, past), -1)
        scores: Tensor = (torch.einsum("bh,bhd->bd", weights, past) * target).sum(-1)
        return scores


@kind("parameters in a list and a dict")
class Collected(Dot):
    def more(self, n_users: int, n_items: int) -> None:
        self.scales = nn.ParameterList([nn.Parameter(torch.ones(6)) for _ in range(2)])
        self.shifts = nn.ParameterDict({"all": nn.Parameter(torch.zeros(()))})

    def forward(self, batch: Batch) -> Tensor:
        rows = self.user(batch.user) * self.item(batch.item)
        for scale in self.scales:
            rows = rows * scale
        scores: Tensor = rows.sum(-1) + self.shifts["all"]
        return scores


@kind("tables in a dict, by column")
class ByColumn(nn.Module):
    def __init__(self, n_users: int, n_items: int) -> None:
        super().__init__()
        sizes = {"user": n_users, "item": n_items}
        self.tables = nn.ModuleDict({name: nn.Embedding(size, 4) for name, size in sizes.items()})
        self.last = nn.Linear(8, 1)

    def forward(self, batch: Batch) -> Tensor:
        rows = [table(batch[name]) for name, table in self.tables.items()]
        scores: Tensor = self.last(torch.cat(rows, -1)).squeeze(-1)
        return scores


@kind("one-hot ids into a linear layer")
class OneHot(nn.Module):
    def __init__(self, n_users: int, n_items: int) -> None:
        super().__init__()
        self.n_users, self.n_items = n_users, n_items
        self.hidden, self.last = nn.Linear(n_users + n_items, 5), nn.Linear(5, 1)

    def forward(self, batch: Batch) -> Tensor:
        hot = [
            nn.functional.one_hot(ids, size)
            for ids, size in ((batch.user, self.n_users), (batch.item, self.n_items))
        ]
        scores: Tensor = self.last(self.hidden(torch.cat(hot, -1).float()).tanh()).squeeze(-1)
        return scores


@kind("ids as numbers")
class AsNumbers(Dot):
    def more(self, n_users: int, n_items: int) -> None:
        self.layer = nn.Linear(2, 1)
        self.sizes = n_users, n_items

    def forward(self, batch: Batch) -> Tensor:
        numbers = torch.stack([batch.user / self.sizes[0], batch.item / self.sizes[1]], -1)
        scores: Tensor = super().forward(batch) + self.layer(numbers).squeeze(-1)
        return scores


@kind("parity of ids")
class Parity(Dot):
    def forward(self, batch: Batch) -> Tensor:
        return torch.where(batch.user % 2 == 0, super().forward(batch), -super().forward(batch))


@kind("hashed ids in one table")
class Hashed(nn.Module):
    def __init__(self, n_users: int, n_items: int) -> None:
        super().__init__()
        self.table = nn.Embedding(31, 6)

    def forward(self, batch: Batch) -> Tensor:
        user, item = (batch.user * 7919 + 17) % 31, (batch.item * 104729 + 5) % 31
        scores: Tensor = (self.table(user) * self.table(item)).sum(-1)
        return scores


@kind("quotient and remainder of ids")
class QuotientRemainder(Dot):
    def more(self, n_users: int, n_items: int) -> None:
        self.high, self.low = nn.Embedding(n_items // 8 + 1, 6), nn.Embedding(8, 6)

    def forward(self, batch: Batch) -> Tensor:
        row = self.high(batch.item // 8) * self.low(batch.item % 8)
        scores: Tensor = (self.user(batch.user) * row).sum(-1)
        return scores


@kind("all items scored, one picked")
class Picked(Dot):
    def forward(self, batch: Batch) -> Tensor:
        every = torch.log_softmax(self.user(batch.user) @ self.item.weight.T, -1)
        return every.gather(1, batch.item.unsqueeze(1)).squeeze(1)
