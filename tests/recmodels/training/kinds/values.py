"""What modules do with values: branches, sorting, shapes that depend on data, numbers of other types."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from recmodels.models.base import Batch
from tests.recmodels.training.kinds.base import Dot, Kinds

kind = Kinds()


@kind("a branch on the scores")
class Branching(Dot):
    def forward(self, batch: Batch) -> Tensor:
        scores = super().forward(batch)
        return scores * 2 if scores.mean() > 0 else scores


@kind("a loop until it converges")
class Converging(Dot):
    def forward(self, batch: Batch) -> Tensor:
        scores = super().forward(batch)
        for _ in range(8):
            after = torch.tanh(scores) + 0.5 * super().forward(batch)
            if float((after - scores).abs().max()) < 0.3:
                break
            scores = after
        return scores


@kind("a number taken out of a tensor")
class Item(Dot):
    def forward(self, batch: Batch) -> Tensor:
        scores = super().forward(batch)
        return scores / max(0.1, scores.std().item())


@kind("scores sorted within the batch")
class Sorted(Dot):
    def forward(self, batch: Batch) -> Tensor:
        scores = super().forward(batch)
        ranks = scores.detach().argsort().argsort()
        return scores * (1 + ranks / len(ranks))


@kind("distinct users of the batch")
class Distinct(Dot):
    def forward(self, batch: Batch) -> Tensor:
        users, places = batch.user.unique(return_inverse=True)
        rows = self.user(users).tanh()
        scores: Tensor = (rows[places] * self.item(batch.item)).sum(-1)
        return scores


@kind("a mask that picks by value")
class Masked(Dot):
    def forward(self, batch: Batch) -> Tensor:
        scores = super().forward(batch)
        high = scores > 0.1
        result = scores.clone()
        result[high] = scores[high] * 1.5
        return result


@kind("activations changed in place")
class ChangedInPlace(Dot):
    def forward(self, batch: Batch) -> Tensor:
        rows = self.user(batch.user) * 1.0
        rows *= self.item(batch.item)
        rows[:, 0] += 1
        rows.clamp_(-2, 2)
        scores: Tensor = rows.sum(-1)
        return scores


@kind("the mean of the batch taken off")
class BatchMean(Dot):
    def forward(self, batch: Batch) -> Tensor:
        scores = super().forward(batch)
        return scores - 0.5 * scores.mean()


@kind("examples that see each other (attention over the batch)")
class OverBatch(Dot):
    def forward(self, batch: Batch) -> Tensor:
        user, item = self.user(batch.user), self.item(batch.item)
        mixed = torch.softmax(user @ user.T, -1) @ item
        scores: Tensor = (user * (item + 0.3 * mixed)).sum(-1)
        return scores


@kind("ids through numpy")
class ThroughNumpy(Dot):
    def forward(self, batch: Batch) -> Tensor:
        odd = torch.from_numpy(np.asarray(batch.user.numpy() % 2, np.float32))
        return super().forward(batch) + 0.1 * odd


@kind("a loop over examples")
class OneByOne(Dot):
    def forward(self, batch: Batch) -> Tensor:
        user, item = self.user(batch.user), self.item(batch.item)
        return torch.stack([torch.dot(user[k], item[k]) for k in range(len(user))])


@kind("random noise in training")
class Noisy(Dot):
    def forward(self, batch: Batch) -> Tensor:
        scores = super().forward(batch)
        return scores + 0.3 * torch.randn_like(scores) if self.training else scores


@kind("a sampled vector (variational)")
class Variational(Dot):
    def more(self, n_users: int, n_items: int) -> None:
        self.spread = nn.Embedding(n_users, 6)
        nn.init.constant_(self.spread.weight, -2.0)

    def forward(self, batch: Batch) -> Tensor:
        user = self.user(batch.user)
        if self.training:
            user = user + self.spread(batch.user).exp() * torch.randn(user.shape)
        scores: Tensor = (user * self.item(batch.item)).sum(-1)
        return scores


@kind("one parameter in float64")
class OneDouble(Dot):
    def more(self, n_users: int, n_items: int) -> None:
        self.layer = nn.Linear(12, 1)
        self.shift = nn.Parameter(torch.tensor(np.mean([0.0, 0.2])))

    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = self.layer(self.joined(batch)).squeeze(-1) + self.shift.float()
        return scores


@kind("all in float64")
def double(n_users: int, n_items: int) -> nn.Module:
    return Dot(n_users, n_items).double()


@kind("scores in float64")
class DoubleScores(Dot):
    def forward(self, batch: Batch) -> Tensor:
        return super().forward(batch).double()


@kind("all in bfloat16")
def brain(n_users: int, n_items: int) -> nn.Module:
    return Dot(n_users, n_items).bfloat16()


@kind("all in float16")
def half(n_users: int, n_items: int) -> nn.Module:
    return Dot(n_users, n_items).half()


@kind("automatic mixed precision")
class Autocast(Dot):
    def more(self, n_users: int, n_items: int) -> None:
        self.layer = nn.Linear(12, 1)

    def forward(self, batch: Batch) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            scores: Tensor = self.layer(self.joined(batch)).squeeze(-1)
        return scores


@kind("complex rows (ComplEx)")
class ComplexRows(nn.Module):
    def __init__(self, n_users: int, n_items: int) -> None:
        super().__init__()
        self.user = nn.Parameter(torch.randn(n_users, 4, dtype=torch.complex64) * 0.3)
        self.item = nn.Parameter(torch.randn(n_items, 4, dtype=torch.complex64) * 0.3)

    def forward(self, batch: Batch) -> Tensor:
        return (self.user[batch.user] * self.item[batch.item].conj()).sum(-1).real


@kind("rotations by complex numbers (RotatE)")
class Rotated(Dot):
    def more(self, n_users: int, n_items: int) -> None:
        self.angle = nn.Parameter(torch.zeros(3))

    def forward(self, batch: Batch) -> Tensor:
        user = torch.view_as_complex(self.user(batch.user).view(-1, 3, 2).contiguous())
        item = torch.view_as_complex(self.item(batch.item).view(-1, 3, 2).contiguous())
        turned = user * torch.polar(torch.ones(3), self.angle)
        return 1 - (turned - item).abs().sum(-1)
