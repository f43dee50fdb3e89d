"""Anything may stand in a file: a result and a loss are read, or refused in one line by a documented error."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gploss.files.plain import canonical_json, digest
from gploss.language.expression import Expression
from gploss.loss_function import ExpressionLoss
from gploss.search.evaluation import Evaluation, Status
from gploss.search.result import ResultError, SearchResult

MSE = Expression.parse("square(label - pred)")

RESULT = SearchResult(
    searcher="random",
    seed=3,
    stopped="budget",
    metric="auc",
    higher_is_better=True,
    counts={"proposals": 2, "trained": 1, "rejected": 1},
    settings={"seed": 3, "evaluator": {"task": "pointwise"}},
    records=(
        Evaluation(MSE, Status.TRAINED, reward=0.75, metrics={"auc": [0.5, 0.75]}, fingerprint="a", scale=0.5),
        Evaluation(Expression.parse("pred"), Status.REJECTED, reason="no dependence on label"),
    ),
    elapsed=(0.25, 0.5),
)

#: Texts and bytes that are no result and no loss.
CONTENTS: dict[str, bytes] = {
    "nothing": b"",
    "deep lists": b"[" * 100_000 + b"]" * 100_000,
    "deep dictionaries": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "no UTF-8": b'{"format": "\xff\xfe"}',
    "UTF-16": '{"format": 1}'.encode("utf-16"),
    "zero bytes": b"\0" * 100,
    "a huge number": b'{"scale": ' + b"9" * 10_000 + b"}",
    "a number": b"3",
    "not a number": b"NaN",
    "a list": b"[1, 2]",
    "half a surrogate": b'{"format": "\\ud800", "expression": "\\ud800", "scale": 1, "task": "pointwise"}',
    "cut off": b'{"format": "gploss search result", "version": 2, "result": {',
}

#: What may stand where something else should.
ODD: list[Any] = [
    None,
    True,
    -1,
    0.5,
    1e308,
    10**400,
    "",
    "x",
    "\ud800",
    "((",
    [],
    [1],
    [[]],
    {},
    {"a": 1},
    {"a": [{}]},
]


def _parts(content: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a nested record."""
    found = [place] if place else []
    pairs = (
        content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    )
    for name, value in pairs:
        found += _parts(value, (*place, name))
    return found


def _changed(content: Any, place: tuple[Any, ...], value: Any) -> Any:
    other = copy.deepcopy(content)
    inner = other
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    return other


@pytest.mark.parametrize("name", CONTENTS)
def test_what_is_neither_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(CONTENTS[name])
    with pytest.raises(ResultError, match=r"file\.json: ") as caught:
        SearchResult.load(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"file\.json holds no saved loss: ") as wrong:
        ExpressionLoss.load(path)
    assert "\n" not in str(wrong.value)


def test_folders_and_pipes_are_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    if hasattr(os, "mkfifo"):
        os.mkfifo(pipe)
    for path in (tmp_path, *([pipe] if pipe.exists() else [])):
        with pytest.raises(ResultError, match=r"folder|pipe"):
            SearchResult.load(path)
        with pytest.raises(ValueError, match=r"folder|pipe"):
            ExpressionLoss.load(path)
    for load in (SearchResult.load, ExpressionLoss.load):
        with pytest.raises(FileNotFoundError):
            load(tmp_path / "absent")


def test_a_result_with_anything_in_any_place_is_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    RESULT.save(path)
    document = json.loads(path.read_text())
    refused = 0
    for place in _parts(document["result"]):
        for value in ODD:
            content = _changed(document["result"], place, value)
            sealed = {**document, "result": content, "digest": digest(canonical_json(content))}
            path.write_text(json.dumps(sealed))
            try:
                loaded = SearchResult.load(path)
            except ResultError as error:
                refused += 1
                assert "\n" not in str(error)
            else:
                repr(loaded)
                loaded._repr_html_()
                assert len(loaded.evaluations) == len(loaded.records)
    assert refused > 200


def test_a_loss_with_anything_in_any_place_is_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "loss.json"
    ExpressionLoss(MSE, 0.5).save(path)
    record = json.loads(path.read_text())
    for place in _parts(record):
        for value in ODD:
            path.write_text(json.dumps(_changed(record, place, value)))
            try:
                loaded = ExpressionLoss.load(path)
            except ValueError as error:
                assert "\n" not in str(error)
            else:
                assert np.isfinite(loaded.scale) and loaded.scale > 0
