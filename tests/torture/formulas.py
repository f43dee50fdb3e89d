"""Texts that look like formulas, and some that are: read as documented, printed and read back, never run."""

from __future__ import annotations

import random
import warnings
from typing import Final

from gploss.language.expression import Expression
from gploss.language.operators import OPERATORS
from gploss.language.parsing import MAX_TEXT, ExpressionError
from gploss.tasks.pointwise import LOSSES
from tests.torture.guard import Wrong, watched

_GOOD: Final = [str(LOSSES[name].expression) for name in LOSSES.names()]
_GOOD += [LOSSES[name].expression.readable() for name in LOSSES.names()]
_NAMES: Final = [
    *OPERATORS.names(),
    "pred",
    "label",
    "logit",
    "y",
    "s",
    "clamped",
    "weight",
    "t=0.2",
    "nan",
    "inf",
    "1e999",
]
_PIECES: Final = [
    "__import__('os').system('id')",
    "().__class__.__bases__[0].__subclasses__()",
    "lambda: 0",
    "[x for x in y]",
    "f'{y}'",
    "open('/etc/passwd').read()",
    "pred if label else logit",
    "(yield)",
    "await y",
    "y := s",
    "*y",
    "**s",
    "y.real",
    "y[0]",
    "'text'",
    "b'x'",
    "1_000",
    "0x1f",
    "0b11",
    "0o7",
    "1j",
    "1e400",
    "-1e-400",
    "9" * 400,
    "0x" + "f" * 5000,
    "...",
    "None",
    "True",
    "not y",
    "y and s",
    "y < s < y",
    "y == s",
    "~y",
    "y @ s",
    "y // s",
    "y % s",
    "y << s",
    "y | s",
    "y ** s ** y",
    "import os",
    "def f(): pass",
    "class A: pass",
    "global y",
    "del y",
    "\\",
    "#",
    "'''",
    '"""',
    "\0",
    "\r\n",
    "\t",
    "\f",
    "\u2028",
    "\ufeff",
    "\u202e",
    "ſ",
    "K",
    "ℌ",
    "𝐲",
    "é",
    "é",
    "\ud800",
    "😀",
    "٣",
    "½",
    "y\u200b",
]
_BRACKETS: Final = [
    *[("(", ")"), ("neg(", ")"), ("add(y, ", ")"), ("[", "]"), ("f(", ")"), ("(y+", ")*s")],
    *[("-", ""), ("y+", ""), ("y**", ""), ("y.", ""), ("not ", ""), ("lambda:", ""), ("a=y;", "")],
]
_JOINTS: Final = [
    "(",
    ")",
    ",",
    " ",
    ";",
    "=",
    "+",
    "-",
    "*",
    "/",
    "**",
    ".",
    ":",
    "\n",
    "[",
    "]",
    "{",
    "}",
    "@",
    "~",
    "!",
]


def text_of(seed: int) -> str:
    """Return a hostile text: the same one for the same seed."""
    rng = random.Random(seed)
    return rng.choice(_KINDS)(rng)


def _bytes(rng: random.Random) -> str:
    return rng.randbytes(rng.randint(0, 60)).decode(
        *rng.choice([("latin-1",), ("utf-8", "surrogateescape"), ("utf-16", "replace")])
    )


def _mutated(rng: random.Random) -> str:
    text = rng.choice(_GOOD)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(text) + 1)
        until = min(len(text), at + rng.randint(0, 6))
        piece = rng.choice(
            [*_PIECES, *_NAMES, *_JOINTS, str(rng.uniform(-9, 9)), text[at:until] * rng.randint(0, 3)]
        )
        text = text[:at] + piece + text[rng.choice([at, until]) :]
    return text


def _words(rng: random.Random) -> str:
    return "".join(rng.choice(rng.choice([_NAMES, _JOINTS, _PIECES])) for _ in range(rng.randint(1, 25)))


def _calls(rng: random.Random) -> str:
    """A tree of calls, most of them with as many operands as their operators have."""

    def node(depth: int) -> str:
        if depth == 0 or rng.random() < 0.2:
            return rng.choice([*_NAMES[-11:], f"{rng.gauss(0, 10 ** rng.randint(0, 6)):.4g}"])
        name = rng.choice(OPERATORS.names())
        count = OPERATORS[name].arity if rng.random() < 0.98 else rng.randint(0, 4)
        return f"{name}({', '.join(node(depth - 1) for _ in range(count))})"

    return node(rng.randint(1, 5))


def _deep(rng: random.Random) -> str:
    times = rng.choice([50, 99, 100, 101, 200, 1000, 5000, 30000])
    begin, end = rng.choice(_BRACKETS)
    return begin * times + "y" + end * (times if rng.random() < 0.8 else times - 1)


def _shared(rng: random.Random) -> str:
    """Parts that double again and again: few characters, and a tree of any size."""
    lines, last = [], "y - p"
    for number in range(rng.randint(2, 60)):
        lines.append(f"v{number} = {last}")
        last = rng.choice(["{0} * {0}", "add({0}, neg({0}))", "max({0}, s * {0})", "exp({0}) / {0}"]).format(
            f"v{number}"
        )
    return "; ".join(["p = sigmoid(s)", *lines, last])


def _long(rng: random.Random) -> str:
    return rng.choice(["y+", "9", "y ", "add(y,", "ℌ", "a", "y;", "0.", "1e", "((", "\\\n"]) * rng.choice(
        [3000, 60000, MAX_TEXT]
    )


_KINDS: Final = [*[_bytes] * 20, *[_mutated] * 35, *[_words] * 15, *[_calls] * 26, _shared, _shared, _deep, _long]


def trial(seed: int) -> str:
    """Read a text; what can be read is printed in every way, and read back."""
    with watched():
        return _read(text_of(seed))


def _read(text: str) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Python's parser, about numbers
            expression = Expression.parse(text)
    except ExpressionError as error:
        if len(str(error)) > 1000:
            raise Wrong(f"an error of {len(str(error))} characters") from error
        return "refused"
    again = Expression.parse(str(expression))
    if again is not expression and str(again) != str(expression):
        raise Wrong(f"{text[:100]!r} is not read back")
    for printed in (str(expression), expression.readable(), expression.latex(), repr(expression)):
        if len(printed) > 4 * MAX_TEXT:
            raise Wrong(f"{text[:100]!r} is printed in {len(printed)} characters")
    Expression.parse(expression.readable(digits=None))
    _ = expression.size, expression.complexity, expression.canonical(), expression.family
    return "read"
