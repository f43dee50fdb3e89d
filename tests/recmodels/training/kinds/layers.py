"""Torch's own layers, one or two a kind."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from recmodels.models.base import Batch
from tests.recmodels.training.kinds.base import Dot, Kinds, Through, through

kind = Kinds()


def tower(*parts: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(12, 8), *parts)


through(kind, "linear layers and ReLU", lambda: tower(nn.ReLU(), nn.Linear(8, 8), nn.ReLU()), 8)
through(kind, "batch norm", lambda: tower(nn.BatchNorm1d(8), nn.Tanh()), 8)
through(kind, "batch norm without scale", lambda: tower(nn.BatchNorm1d(8, affine=False), nn.Tanh()), 8)
through(kind, "batch norm with a cumulative mean", lambda: tower(nn.BatchNorm1d(8, momentum=None)), 8)
through(
    kind, "batch norm without running statistics", lambda: tower(nn.BatchNorm1d(8, track_running_stats=False)), 8
)
through(kind, "lazy batch norm", lambda: tower(nn.LazyBatchNorm1d()), 8)
through(kind, "layer norm", lambda: tower(nn.LayerNorm(8)), 8)
through(kind, "layer norm without scale", lambda: tower(nn.LayerNorm(8, elementwise_affine=False)), 8)
through(kind, "group norm", lambda: tower(nn.GroupNorm(2, 8)), 8)
through(kind, "RMS norm", lambda: tower(nn.RMSNorm(8)), 8)
through(kind, "dropout", lambda: tower(nn.Dropout(0.3)), 8)
through(kind, "dropout in place", lambda: tower(nn.Dropout(0.3, inplace=True)), 8)
through(kind, "alpha dropout and SELU", lambda: tower(nn.SELU(), nn.AlphaDropout(0.3)), 8)
through(kind, "randomised ReLU", lambda: tower(nn.RReLU()), 8)
through(kind, "PReLU, one slope", lambda: tower(nn.PReLU()), 8)
through(kind, "PReLU, a slope a channel", lambda: tower(nn.PReLU(8)), 8)
through(kind, "GELU and SiLU", lambda: tower(nn.GELU(), nn.Linear(8, 8), nn.SiLU()), 8)
through(kind, "gated linear units", lambda: nn.Sequential(nn.Linear(12, 16), nn.GLU()), 8)
through(kind, "softmax within", lambda: tower(nn.Softmax(-1)), 8)
through(kind, "softsign in place", lambda: tower(nn.LeakyReLU(0.1, inplace=True)), 8)
through(kind, "lazy linear layer", lambda: nn.LazyLinear(8), 8)
through(kind, "spectral norm", lambda: parametrizations.spectral_norm(nn.Linear(12, 8)), 8)
through(kind, "weight norm", lambda: parametrizations.weight_norm(nn.Linear(12, 8)), 8)
through(kind, "orthogonal weights", lambda: parametrizations.orthogonal(nn.Linear(12, 12)))
through(kind, "a module list", lambda: nn.Sequential(*(nn.Linear(12, 12) for _ in range(3))))
through(kind, "a layer used twice", lambda: nn.Sequential(*[nn.Linear(12, 12)] * 2))
through(kind, "a scripted layer", lambda: torch.jit.script(nn.Linear(12, 8)), 8)  # type: ignore[no-untyped-call]


@kind("weight norm by a hook")
def old_weight_norm(n_users: int, n_items: int) -> nn.Module:
    class OldWeightNorm(Through):
        def more(self, n_users: int, n_items: int) -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)
                self.body = nn.utils.weight_norm(nn.Linear(12, 12))

    return OldWeightNorm(n_users, n_items)


class Symmetric(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight.triu() + weight.triu(1).mT


@kind("an own parametrization")
class OwnParametrization(Through):
    def more(self, n_users: int, n_items: int) -> None:
        self.body = nn.Linear(12, 12)
        parametrize.register_parametrization(self.body, "weight", Symmetric())


class OverPair(Dot):
    """Both rows as a sequence of two."""

    layer: nn.Module

    def __init__(self, n_users: int, n_items: int) -> None:
        super().__init__(n_users, n_items)
        self.last = nn.Linear(6, 1)

    def read(self, pair: Tensor) -> Tensor:
        states: Tensor = self.layer(pair)[0]
        return states[:, -1]

    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = self.last(self.read(self.pair(batch))).squeeze(-1)
        return scores


@kind("GRU")
class Gru(OverPair):
    def more(self, n_users: int, n_items: int) -> None:
        self.layer = nn.GRU(6, 6, batch_first=True)


@kind("LSTM")
class Lstm(OverPair):
    def more(self, n_users: int, n_items: int) -> None:
        self.layer = nn.LSTM(6, 6, batch_first=True)


@kind("RNN in both directions")
class Rnn(OverPair):
    def more(self, n_users: int, n_items: int) -> None:
        self.layer = nn.RNN(6, 3, batch_first=True, bidirectional=True)


@kind("GRU cell")
class Cell(OverPair):
    def more(self, n_users: int, n_items: int) -> None:
        self.layer = nn.GRUCell(6, 6)

    def read(self, pair: Tensor) -> Tensor:
        state = torch.zeros_like(pair[:, 0])
        for step in range(2):
            state = self.layer(pair[:, step], state)
        return state


@kind("LSTM cell")
class LongCell(OverPair):
    def more(self, n_users: int, n_items: int) -> None:
        self.layer = nn.LSTMCell(6, 6)

    def read(self, pair: Tensor) -> Tensor:
        state = self.layer(pair[:, 0])
        hidden: Tensor = self.layer(pair[:, 1], state)[0]
        return hidden


@kind("multi-head attention")
class Attention(OverPair):
    def more(self, n_users: int, n_items: int) -> None:
        self.layer = nn.MultiheadAttention(6, 2, batch_first=True)

    def read(self, pair: Tensor) -> Tensor:
        mixed: Tensor = self.layer(pair, pair, pair, need_weights=False)[0]
        return mixed.mean(1)


@kind("transformer encoder layer")
class Transformer(OverPair):
    def more(self, n_users: int, n_items: int) -> None:
        self.layer = nn.TransformerEncoderLayer(6, 2, 12, dropout=0.1, batch_first=True)

    def read(self, pair: Tensor) -> Tensor:
        mixed: Tensor = self.layer(pair)
        return mixed.mean(1)


@kind("convolution")
class Convolution(OverPair):
    def more(self, n_users: int, n_items: int) -> None:
        self.layer = nn.Conv1d(2, 3, 3, padding=1)

    def read(self, pair: Tensor) -> Tensor:
        maps: Tensor = self.layer(pair)
        return maps.relu().amax(1)


@kind("convolution of the outer product")
class Outer(OverPair):
    def more(self, n_users: int, n_items: int) -> None:
        self.layer = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.flat = nn.Linear(18, 6)

    def read(self, pair: Tensor) -> Tensor:
        product = torch.einsum("bi,bj->bij", pair[:, 0], pair[:, 1]).unsqueeze(1)
        flat: Tensor = self.flat(self.layer(product).flatten(1))
        return flat


@kind("batch norm of channels and places")
class ChannelNorm(OverPair):
    def more(self, n_users: int, n_items: int) -> None:
        self.layer = nn.BatchNorm1d(2)

    def read(self, pair: Tensor) -> Tensor:
        normed: Tensor = self.layer(pair)
        return normed.prod(1)


@kind("instance norm")
class InstanceNorm(ChannelNorm):
    def more(self, n_users: int, n_items: int) -> None:
        self.layer = nn.InstanceNorm1d(2, affine=True)


@kind("dropout of channels")
class ChannelDropout(ChannelNorm):
    def more(self, n_users: int, n_items: int) -> None:
        self.layer = nn.Dropout1d(0.3)


@kind("bilinear layer")
class Bilinear(Dot):
    def more(self, n_users: int, n_items: int) -> None:
        self.layer = nn.Bilinear(6, 6, 1)

    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = self.layer(self.user(batch.user), self.item(batch.item)).squeeze(-1)
        return scores


@kind("cosine similarity")
class Cosine(Dot):
    def forward(self, batch: Batch) -> Tensor:
        return 3 * nn.functional.cosine_similarity(self.user(batch.user), self.item(batch.item))


@kind("distance")
class Distance(Dot):
    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = 1 - (self.user(batch.user) - self.item(batch.item)).norm(dim=-1)
        return scores
