"""Which of many losses are worth training: those that screening rejects, and duplicates, are sifted out before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gploss.compute.kinds import Loss
from gploss.screening.screening import Reason, Screening, screen
from gploss.search.evaluation import Evaluation, Status
from gploss.tasks import Task


@dataclass(frozen=True)
class Sieve:
    """What is sifted out.

    Args:
        task: what losses are given.
        scale_free: whether losses that differ by a factor alone are duplicates.
        check_direction: reject losses that fail the task's check of the direction.
        allow: reasons for which a loss is let through all the same.
        recognise_duplicates: whether a loss whose fingerprint was met before is sifted out.

    Raises:
        ValueError: losses that are not finite are to be allowed.
    """

    task: Task
    scale_free: bool
    check_direction: bool = False
    allow: frozenset[Reason] = frozenset()
    recognise_duplicates: bool = True

    def __post_init__(self) -> None:
        if Reason.NON_FINITE in self.allow:
            raise ValueError("a loss that is not finite cannot be trained, so it cannot be allowed")

    def sift(self, losses: Sequence[Loss], seen: Mapping[str, Evaluation], limit: int) -> Sifted:
        """Sift a prefix of some losses.

        Args:
            losses: the candidates.
            seen: what was evaluated before, by fingerprint.
            limit: the most losses to let through; the prefix ends before the next one.
        """
        screening = screen(losses, self.task, scale_free=self.scale_free, check_direction=self.check_direction)
        texts = [
            None if reason in self.allow else text
            for reason, text in zip(screening.reasons, screening.texts, strict=True)
        ]
        met: set[str] = set()  # in this call; `seen` is as long as the run, and not copied
        new: list[int] = []
        for k, (text, fingerprint) in enumerate(zip(texts, screening.fingerprints, strict=True)):
            if text is not None or (self.recognise_duplicates and (fingerprint in met or fingerprint in seen)):
                continue
            if len(new) == limit:
                return Sifted(losses[:k], replace(screening, texts=texts), new, seen)
            met.add(fingerprint)
            new.append(k)
        return Sifted(losses, replace(screening, texts=texts), new, seen)


@dataclass(frozen=True)
class Sifted:
    """A prefix of losses, sifted.

    Attributes:
        losses: the prefix.
        screening: of these and of what came after them; its texts say why a loss is not let through.
        new: positions of the losses to be trained.
        seen: what was evaluated before, by fingerprint.
    """

    losses: Sequence[Loss]
    screening: Screening
    new: list[int]
    seen: Mapping[str, Evaluation]

    def evaluations(self, new: Mapping[int, Evaluation]) -> list[Evaluation]:
        """Return one evaluation a loss of the prefix, in order.

        Args:
            new: the evaluations of those that were let through, by position.
        """
        first: dict[str, Evaluation] = {}
        for k, evaluation in new.items():
            first.setdefault(self.screening.fingerprints[k], evaluation)
        return [new[k] if k in new else self._sifted_out(k, first) for k in range(len(self.losses))]

    def _sifted_out(self, k: int, first: Mapping[str, Evaluation]) -> Evaluation:
        loss, text = self.losses[k], self.screening.texts[k]
        if text is not None:
            return Evaluation(loss, Status.REJECTED, reason=text)
        fingerprint = self.screening.fingerprints[k]
        original = self.seen[fingerprint] if fingerprint in self.seen else first[fingerprint]
        return Evaluation(
            loss,
            Status.DUPLICATE,
            reward=original.reward,
            metrics=original.metrics,
            fingerprint=original.fingerprint,
            scale=None if original.scale is None else float(self.screening.scales[k]),
            duplicate_of=str(original.loss),
        )
