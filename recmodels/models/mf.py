"""Matrix factorisation with biases."""

from __future__ import annotations

from typing import Literal

import torch

from recmodels.models.base import MODELS, Batch


class MF(torch.nn.Module):
    """Score = user vector . item vector + user bias + item bias + global bias.

    Source: Koren, Bell, Volinsky, "Matrix factorization techniques for recommender systems" (2009), equation 4;
    AutoLossGen's BiasedMF.

    Args:
        n_users: number of users.
        n_items: number of items.
        embedding_size: length of the vectors.
        initialization: "standard" (vectors N(0, 0.05^2), biases 0) or "paper" (all N(0, 1), global bias 0.1).
    """

    def __init__(
        self,
        n_users: int,
        n_items: int,
        embedding_size: int = 64,
        initialization: Literal["standard", "paper"] = "standard",
    ) -> None:
        super().__init__()
        self.user_embedding = torch.nn.Embedding(n_users, embedding_size)
        self.item_embedding = torch.nn.Embedding(n_items, embedding_size)
        self.user_bias = torch.nn.Embedding(n_users, 1)
        self.item_bias = torch.nn.Embedding(n_items, 1)
        self.global_bias = torch.nn.Parameter(torch.tensor(0.1 if initialization == "paper" else 0.0))
        if initialization == "standard":
            torch.nn.init.normal_(self.user_embedding.weight, std=0.05)
            torch.nn.init.normal_(self.item_embedding.weight, std=0.05)
            torch.nn.init.zeros_(self.user_bias.weight)
            torch.nn.init.zeros_(self.item_bias.weight)

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return scores, shape (B,)."""
        interaction = (self.user_embedding(batch.user) * self.item_embedding(batch.item)).sum(-1)
        biases = self.user_bias(batch.user).squeeze(-1) + self.item_bias(batch.item).squeeze(-1)
        scores: torch.Tensor = interaction + biases + self.global_bias
        return scores


MODELS.register("mf", MF)
