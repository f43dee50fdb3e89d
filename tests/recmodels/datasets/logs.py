"""Small tables that tests of loading share."""

from __future__ import annotations

from pathlib import Path

import pandas as pd


def small_log() -> pd.DataFrame:
    """Twelve rows of each of five users, in time order; every second row is negative."""
    rows = [
        (user, item, 5 if item % 2 == 0 else 2, 100 * item + user) for user in range(1, 6) for item in range(12)
    ]
    return pd.DataFrame(rows, columns=["user_id", "item_id", "rating", "timestamp"])


def write_parts(folder: Path, changes: dict[str, str] | None = None) -> None:
    texts = {
        "train": "uid\tiid\tlabel\n1\t1\t1\n1\t2\t0\n2\t1\t1\n",
        "validation": "uid\tiid\tlabel\n1\t3\t1\n2\t3\t0\n",
        "test": "uid\tiid\tlabel\n1\t4\t1\n2\t4\t0\n9\t9\t0\n",
    }
    for part, text in (texts | (changes or {})).items():
        (folder / f"mine.{part}.csv").write_text(text)
