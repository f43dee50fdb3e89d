"""A feed-forward network on user and item embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from recmodels.models.base import MODELS, Batch


class DeepModel(torch.nn.Module):
    """User and item vectors, joined, through layers of batch normalisation, ReLU and dropout to one score.

    Source: AutoLossGen (arXiv 2204.13160), section 4.1, DeepModel.

    Args:
        n_users: number of users.
        n_items: number of items.
        embedding_size: length of the vectors.
        layers: sizes of the hidden layers.
        dropout: probability with which a hidden unit is left out in training.
        initialization: "standard" (vectors N(0, 0.05^2)) or "paper" (vectors N(0, 1)).
    """

    def __init__(
        self,
        n_users: int,
        n_items: int,
        embedding_size: int = 64,
        layers: Sequence[int] = (64, 16),
        dropout: float = 0.2,
        initialization: Literal["standard", "paper"] = "standard",
    ) -> None:
        super().__init__()
        self.user_embedding = torch.nn.Embedding(n_users, embedding_size)
        self.item_embedding = torch.nn.Embedding(n_items, embedding_size)
        hidden: list[torch.nn.Module] = []
        width = 2 * embedding_size
        for size in layers:
            hidden += [
                torch.nn.Linear(width, size),
                torch.nn.BatchNorm1d(size),
                torch.nn.ReLU(),
                torch.nn.Dropout(dropout),
            ]
            width = size
        self.hidden = torch.nn.Sequential(*hidden)
        self.output = torch.nn.Linear(width, 1)
        if initialization == "standard":
            torch.nn.init.normal_(self.user_embedding.weight, std=0.05)
            torch.nn.init.normal_(self.item_embedding.weight, std=0.05)

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return scores, shape (B,)."""
        joined = torch.cat([self.user_embedding(batch.user), self.item_embedding(batch.item)], dim=-1)
        scores: torch.Tensor = self.output(self.hidden(joined))
        return scores.squeeze(-1)


MODELS.register("deep", DeepModel)
