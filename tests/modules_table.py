"""The table of docs/results/modules.md: kinds of modules, each trained by gploss and by a plain torch loop.

`python tests/modules_table.py [OUT]` writes it, in about two minutes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

# Before tests/, where a program finds folders of tests that have the packages' names.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from recmodels.models.base import ModelFactory
from tests.recmodels.training.kinds import FILES
from tests.recmodels.training.kinds.compare import Found, compare

PROJECT: Final = Path(__file__).resolve().parents[1]

HEAD: Final = """# Kinds of modules against a plain torch loop

Made by `python tests/modules_table.py` with torch {torch}. {count} kinds of modules, each trained by
`choose_trainer` on the CPU and by the loop that anybody would write (one module, `torch.optim`, the loss as a
function; `tests/recmodels/training/kinds/loop.py`), from the same initial weights, on the same batches, with the
same seeds of dropout: two losses, two epochs of eight batches. The numbers are distances from the plain loop after
that: of validation scores, as a part of their distance from their mean, and of the worst tensor of weights and
buffers, as a part of its length. One ReLU that rounding turns over makes the distance some 1e-4; half precision
rounds at 1e-3.

The way: *fused*, compiled for matrix factorisation; *stacked*, the members a leading dimension of all tensors;
*mapped*, stacked and mapped by `torch.vmap`; *one by one*, each member the user's own module in plain torch. Behind
it, why no faster one was taken.
"""


def row(text: str, factory: ModelFactory) -> str:
    """Train one kind under both optimisers; return its line."""
    sgd, adagrad = compare(factory, "sgd"), compare(factory, "adagrad")
    return (
        f"| {text} | {sgd.scores:.0e} | {sgd.weights:.0e} | {adagrad.scores:.0e} | {adagrad.weights:.0e} "
        f"| {_way(sgd)} | {_reason(sgd)} |"
    )


def _way(found: Found) -> str:
    return found.way.removeprefix("stacked, ")


def _reason(found: Found) -> str:
    return (found.reason or "").replace("|", "/").replace("\n", " ")[:110]


def main() -> None:
    """Write the table."""
    torch.set_num_threads(1)
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else PROJECT / "docs" / "results" / "modules.md"
    lines = [HEAD.format(torch=torch.__version__.partition("+")[0], count=sum(map(len, FILES.values())))]
    for heading, kinds in FILES.items():
        lines += [f"## {heading}", ""]
        lines += ["| kind | sgd: scores | weights | adagrad: scores | weights | way | why no faster |"]
        lines += ["| --- | ---: | ---: | ---: | ---: | --- | --- |"]
        for text, factory in kinds.items():
            lines.append(row(text, factory))
            print(lines[-1], flush=True)
        lines.append("")
    out.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
