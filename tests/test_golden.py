"""Names of losses and keys of the cache are what they were: `tests/golden.json` holds them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from tests.golden import identities

GOLDEN = Path(__file__).with_name("golden.json")
ADVICE = """
Fingerprints or keys that change make every stored evaluation unusable. Where that is meant: raise FORMAT_VERSION in
recmodels/evaluator.py, say so in CHANGELOG.md, and write the file anew with
    python tests/golden.py identities tests/golden.json"""


def differences(old: object, new: object, where: str = "") -> Iterator[str]:
    """A line for each value that differs."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            yield from differences(old.get(name, "nothing"), new.get(name, "nothing"), f"{where} / {name}")
    elif old != new or type(old) is not type(new):
        yield f"{where.removeprefix(' / ')}: was {old!r}, is {new!r}"


def test_losses_and_keys_are_what_they_were() -> None:
    found = json.loads(json.dumps(identities()))
    lines = list(differences(json.loads(GOLDEN.read_text()), found))
    assert not lines, "\n".join([*lines, ADVICE])
