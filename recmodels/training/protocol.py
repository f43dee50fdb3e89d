"""How a model is trained: optimiser, initialisation, clipping, decay. Two protocols, and why there are two.

`PAPER` trains as AutoLossGen's authors do, `STANDARD` as a tuned recommender would be. Most of what the paper's
protocol rewards in a loss is its step size; a found loss counts only if it wins under `STANDARD`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final, Literal

from gploss.arguments import choice, instance, real_number, truth, whole_number
from gploss.registry import Registry
from gploss.setting import Setting


@dataclass(frozen=True)
class Protocol:
    """Everything about training that is not the loss, the data, the model or the seed.

    Args:
        name: for tables and keys.
        optimizer: "sgd" (plain), "adagrad" (per element), or "adam" (lazy: of embeddings only the rows that a batch
            touches; its usual constants; the fused trainer only).
        learning_rate: default rate of a member.
        weight_decay: default decay of a member. Under "sgd" each step shrinks every weight by rate * decay;
            under the others decay * weight is added to the gradient of the rows that a batch touches.
        batch_size: default of a member: examples in a batch; the loss is their mean.
        gradient_clip: bound on each element of the gradient, or None.
        loss_decay: L2 in the loss itself: 2 * loss_decay * weight is added to the gradient before clipping
            (AutoLossGen's effectiveness runs: 1e-4; "sgd" only).
        initial_accumulator: where Adagrad's accumulators start.
        initialization: "standard" (embeddings N(0, 0.05^2), biases 0) or "paper" (all N(0, 1), global bias 0.1).
        scale_free: divide each loss by its scale s.
        patience: epochs without a better validation value after which a member stops, or None.
    """

    name: str
    optimizer: Literal["sgd", "adagrad", "adam"]
    learning_rate: float
    weight_decay: float
    batch_size: int
    gradient_clip: float | None
    loss_decay: float
    initial_accumulator: float
    initialization: Literal["standard", "paper"]
    scale_free: bool
    patience: int | None

    def __post_init__(self) -> None:
        self._check_kinds()
        if not (
            self.learning_rate > 0 and self.weight_decay >= 0 and self.loss_decay >= 0 and self.batch_size >= 1
        ):
            raise ValueError("rate and batch size must be positive, decays at least 0")
        if self.loss_decay and self.optimizer != "sgd":
            raise ValueError("loss_decay goes with optimizer 'sgd'")
        if self.optimizer == "adagrad" and not self.initial_accumulator > 0:
            raise ValueError("initial_accumulator must be positive, or Adagrad divides 0 by 0")
        if self.gradient_clip is not None and not self.gradient_clip > 0:
            raise ValueError("gradient_clip must be positive, or None")

    def _check_kinds(self) -> None:
        """Take numpy's numbers as Python's, and refuse what is none."""
        instance("name", self.name, str, "a text")
        choice("optimizer", self.optimizer, ("sgd", "adagrad", "adam"))
        choice("initialization", self.initialization, ("standard", "paper"))
        for name in ("learning_rate", "weight_decay", "gradient_clip", "loss_decay", "initial_accumulator"):
            value = getattr(self, name)
            if value is not None or name != "gradient_clip":
                object.__setattr__(self, name, real_number(name, value))
        object.__setattr__(self, "batch_size", whole_number("batch_size", self.batch_size, least=1))
        object.__setattr__(self, "scale_free", truth("scale_free", self.scale_free))
        if self.patience is not None:
            object.__setattr__(self, "patience", whole_number("patience", self.patience, least=1))

    def settings(self) -> dict[str, Setting]:
        """Return what members may choose for themselves, with this protocol's values as defaults."""
        decay = self.weight_decay or 1e-4  # a range by factors has no 0
        declared = (
            Setting("learning_rate", self.learning_rate, self.learning_rate / 8, self.learning_rate * 8),
            Setting("weight_decay", self.weight_decay, decay / 32, decay * 32),
            Setting("batch_size", self.batch_size, max(2, self.batch_size // 4), self.batch_size * 4, "whole", 1),
        )
        return {setting.name: setting for setting in declared}

    def describe(self) -> dict[str, str | float | int | bool | None]:
        """Return all fields, for keys and records."""
        return asdict(self)


STANDARD: Final = Protocol(
    name="standard",
    optimizer="adagrad",
    learning_rate=0.1,
    weight_decay=2e-4,
    batch_size=512,
    gradient_clip=None,
    loss_decay=0.0,
    initial_accumulator=1e-6,
    initialization="standard",
    scale_free=True,
    patience=3,
)

PAPER: Final = Protocol(
    name="paper",
    optimizer="sgd",
    learning_rate=0.01,
    weight_decay=1e-4,
    batch_size=128,
    gradient_clip=50.0,
    loss_decay=0.0,
    initial_accumulator=0.0,
    initialization="paper",
    scale_free=False,
    patience=100,
)

PROTOCOLS: Final[Registry[Protocol]] = Registry("protocol", module=__name__)
for _protocol in (STANDARD, PAPER):
    PROTOCOLS.register(_protocol.name, _protocol)
PROTOCOLS.protect(PROTOCOLS)
