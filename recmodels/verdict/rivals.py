"""Who takes part in a comparison: losses by name or formula, each once, whatever it is called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from gploss.arguments import instance
from gploss.arguments import texts as given_texts
from gploss.compute.kinds import Loss
from gploss.language.expression import Expression
from gploss.screening.screening import screen
from gploss.setting import Setting
from gploss.tasks import Task

#: The group of losses that are known; the best of them is what found ones are compared with.
HAND_MADE: Final = "hand-made"


@dataclass(frozen=True)
class Rival:
    """A loss that takes part.

    Attributes:
        name: for tables.
        group: `HAND_MADE`, or what found it, such as a searcher.
        loss: the loss; its named constants are tuned with the other settings.
        constants: in which ranges; those that are not named here as in `constant_setting`.
        also: other names of the same loss.
    """

    name: str
    group: str
    loss: Loss
    constants: Mapping[str, Setting] = field(default_factory=dict)
    also: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """All names of the loss."""
        return " = ".join((self.name, *self.also))

    def constant_settings(self) -> dict[str, Setting]:
        """Return how each named constant of the loss is tuned."""
        return {
            name: self.constants.get(name, constant_setting(name, value))
            for name, value in self.loss.constants.items()
        }


def constant_setting(name: str, value: float) -> Setting:
    """Return how a constant is tuned of which only the value is known.

    By factors from an eighth to eight times a positive value; any other by differences of up to 2.
    """
    if value > 0:
        return Setting(name, value, value / 8, value * 8)
    return Setting(name, value, value - 2, value + 2, "linear", least=-float("inf"))


def rivals_of(texts: Iterable[str], task: Task, group: str = HAND_MADE) -> list[Rival]:
    """Return the losses that some texts stand for.

    Args:
        texts: names of the task's losses, or formulas; a formula may have a name and a colon in front.
        task: whose names are meant.
        group: of all of them.

    Raises:
        TypeError: they are no list of texts, or the task is none.
        LookupError: a text is neither a name nor a formula; the message has the names.
        ExpressionError: a formula cannot be read.
    """
    instance("task", task, Task, "a Task, such as POINTWISE")
    return [_rival_of(text.strip(), task, group) for text in given_texts("texts", texts)]


def _rival_of(text: str, task: Task, group: str) -> Rival:
    name, colon, formula = (part.strip() for part in text.partition(":"))
    if not colon and (text in task.losses or text.isidentifier()):
        known = task.losses[text]
        return Rival(text, group, known.expression, {setting.name: setting for setting in known.constants})
    return Rival(name, group, Expression.parse(formula if colon else text))


def distinct(rivals: Sequence[Rival], task: Task, *, scale_free: bool) -> tuple[list[Rival], dict[str, str]]:
    """Return each loss once, with all of its names, and apart from them what cannot train anything.

    Losses are the same where training sees the same, and would with other values of their constants. A loss that is
    hand-made as well as found is hand-made.

    Args:
        rivals: in any order.
        task: what the losses are given.
        scale_free: whether losses are compared up to a factor.

    Returns:
        The losses in the order of their first names, and the reasons of the others by name.
    """
    screening = screen([one.loss for one in rivals], task, scale_free=scale_free)
    together: dict[tuple[str, str], list[Rival]] = {}
    left_out = {}
    for one, reason, fingerprint in zip(rivals, screening.texts, screening.fingerprints, strict=True):
        if reason is not None:
            left_out[one.name] = reason
            continue
        family = one.loss.family if one.loss.constants else ""
        together.setdefault((fingerprint, family), []).append(one)
    return [_joined(same) for same in together.values()], left_out


def _joined(same: Sequence[Rival]) -> Rival:
    ordered = sorted(same, key=lambda one: (one.group != HAND_MADE, one.group, one.name))
    names = list(dict.fromkeys(one.name for one in ordered))
    return replace(ordered[0], also=tuple(names[1:]))
