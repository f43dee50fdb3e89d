"""What all kinds of modules are made of, and where they are collected."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from recmodels.models.base import Batch, ModelFactory


class Kinds(dict[str, ModelFactory]):
    """Modules of a file, by what they are."""

    def __call__(self, text: str) -> Callable[[ModelFactory], ModelFactory]:
        """Collect a module class, or a function that makes a module, under a text."""

        def collect(factory: ModelFactory) -> ModelFactory:
            assert text not in self
            self[text] = factory
            return factory

        return collect


class Dot(nn.Module):
    """Rows of two tables, multiplied; `more` is for what a kind has beside them."""

    def __init__(self, n_users: int, n_items: int) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(n_users, 6), nn.Embedding(n_items, 6)
        for table in (self.user, self.item):
            nn.init.normal_(table.weight, std=0.3)
        self.more(n_users, n_items)

    def more(self, n_users: int, n_items: int) -> None:
        """Make further parts."""

    def forward(self, batch: Batch) -> Tensor:
        """Return scores."""
        scores: Tensor = (self.user(batch.user) * self.item(batch.item)).sum(-1)
        return scores

    def joined(self, batch: Batch) -> Tensor:
        """Return (B, 12): both rows of each example."""
        return torch.cat([self.user(batch.user), self.item(batch.item)], -1)

    def pair(self, batch: Batch) -> Tensor:
        """Return (B, 2, 6): both rows of each example."""
        return torch.stack([self.user(batch.user), self.item(batch.item)], 1)


class Through(Dot):
    """Both rows, through `self.body`, which `more` makes, to (B, k), and a last layer."""

    width = 12
    body: nn.Module

    def __init__(self, n_users: int, n_items: int) -> None:
        super().__init__(n_users, n_items)
        self.last = nn.Linear(self.width, 1)

    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = self.last(self.body(self.joined(batch))).squeeze(-1)
        return scores


def through(kinds: Kinds, text: str, make: Callable[[], nn.Module], width: int = 12) -> None:
    """Collect `Through` with some body."""

    class Made(Through):
        def more(self, n_users: int, n_items: int) -> None:
            self.body = make()

    Made.width = width
    Made.__name__ = Made.__qualname__ = "".join(part.capitalize() for part in text.split())
    kinds(text)(Made)
