"""A verdict for people: a sentence, a table, and how it came about; plain values, for whatever writes the page."""

from __future__ import annotations

import math
from typing import Final

import pandas as pd

from recmodels.verdict.bootstrap import LEVEL
from recmodels.verdict.confirmation import Comparison, Verdict
from recmodels.verdict.rivals import HAND_MADE

#: Columns that a terminal has no room for.
ONLY_WRITTEN: Final = ("settings", "tried", "remarks", "formula", "expression")


def verdict_table(verdict: Verdict) -> pd.DataFrame:
    """Return a row a loss: the best hand-made one on validation first, then by the metric on test."""
    rows = [_row(verdict, one, is_baseline=place == 0) for place, one in enumerate(verdict.comparisons)]
    return pd.DataFrame(rows).fillna("")


def verdict_sentence(verdict: Verdict) -> str:
    """Say whether a found loss beats the best hand-made one, and what this test part could have shown."""
    baseline, *others = verdict.comparisons
    found = [one for one in others if one.tuned.group != HAND_MADE]
    beaten = f"the best tuned hand-made loss ({baseline.tuned.name}) on test ({verdict.metric})"
    if not found:
        return f"No found loss that could be trained was compared with {beaten}."
    better = [one for one in found if one.gain.low > 0 and one.p_value < LEVEL]
    if better:
        named = "; ".join(f"{one.tuned.name} by {one.gain.mean:.4f} ({_interval(one)})" for one in better)
        return f"A found loss beats {beaten}: {named}."
    closest = max(found, key=lambda one: one.gain.mean)
    return (
        f"No found loss beats {beaten}; the closest is {closest.tuned.name}, {closest.gain.mean:+.4f} "
        f"({_interval(closest)}). A true gain of {closest.detectable:.4f} would have been found here four times "
        "out of five."
    )


def verdict_notes(verdict: Verdict) -> list[str]:
    """Say how the figures came about, a sentence an item."""
    first = verdict.comparisons[0]
    tried = [one.tuned.tried for one in verdict.comparisons]
    count = f"{min(tried)}" if min(tried) == max(tried) else f"{min(tried)} to {max(tried)}"
    drawn = (
        f"{verdict.n_units:,} rows, for want of users (too narrow, where rows belong together)"
        if verdict.by_row
        else f"{verdict.n_units:,} users with all their rows"
    )
    notes = [
        f"Settings, epochs and finalists were chosen by {verdict.chosen_by} on validation; every loss had {count} "
        f"settings of {', '.join(first.tuned.settings).replace('_', ' ')} raced, in the same ranges, which grow "
        "where the best ones lie at an end.",
        f"Test values are means over {len(first.test)} fresh seeds. A gain is how much better a loss is than the "
        f"first one ({'more' if verdict.higher_is_better else 'less'} {verdict.metric} is better); its interval "
        f"comes from {verdict.resamples:,} paired resamples of seeds and of {drawn}; p-values are Holm's over the "
        "found losses. Other hand-made losses are listed for orientation and not tested.",
        'A true gain as large as "could show" would have been found four times out of five.',
    ]
    notes += [f"Left out: {name} ({reason})." for name, reason in verdict.left_out.items()]
    return notes


def _row(verdict: Verdict, one: Comparison, *, is_baseline: bool) -> dict[str, str]:
    remarks = [f"best {name.replace('_', ' ')} at the end of its range" for name in one.tuned.on_edge]
    if one.diverged:
        remarks.append(f"{one.diverged} of {len(one.test)} seeds diverged")
    constants = {**one.tuned.loss.constants}
    settings = {**one.tuned.settings, **constants}
    return {
        "loss": one.tuned.name,
        "found by": one.tuned.group,
        f"validation {verdict.chosen_by}": f"{one.tuned.validation:.4f}",
        f"test {verdict.metric}": f"{one.test.mean():.4f}",
        "gain": "baseline" if is_baseline else f"{one.gain.mean:+.4f}",
        "95% interval": "" if is_baseline else _interval(one),
        "could show": "" if is_baseline else f"{one.detectable:.4f}",
        "p (Holm)": "" if math.isnan(one.p_value) else f"{one.p_value:.3f}",
        "settings": ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in settings.items()),
        "tried": str(one.tuned.tried),
        "remarks": "; ".join(remarks),
        "formula": one.tuned.loss.readable(),
        "expression": str(one.tuned.loss),
    }


def _interval(one: Comparison) -> str:
    return f"{one.gain.low:+.4f} to {one.gain.high:+.4f}"
