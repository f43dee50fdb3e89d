"""Tables as text: for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderResult
from rich.table import Table
from rich.text import Text

_LONG_CELL = 32  # characters


def _cell(value: object) -> str:
    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and np.isnan(value)):
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)


def _numeric(frame: pd.DataFrame) -> list[bool]:
    """Tell which columns hold numbers, as numbers or as texts of numbers."""
    texts = [[_cell(value) for value in frame.iloc[:, place]] for place in range(frame.shape[1])]
    return [bool(column) and all(_is_number(text) for text in column) for column in texts]


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "") or "nan")
    except ValueError:
        return text == "none"
    return True


def to_markdown(frame: pd.DataFrame) -> str:
    r"""Write a table as GitHub-flavoured Markdown, without its index.

    Pipes and backslashes are escaped, line breaks become ``<br>``, missing values are empty, floats have six
    significant digits, and columns of numbers are aligned to the right.

    Args:
        frame: any table with at least one column.

    Returns:
        The table, ending in a newline.

    Raises:
        ValueError: the table has no column.

    Example:
        >>> print(to_markdown(pd.DataFrame({"loss": ["a|b"], "AUC": [0.8125]})), end="")
        | loss | AUC |
        | --- | ---: |
        | a\|b | 0.8125 |
    """
    if not len(frame.columns):
        raise ValueError("a Markdown table needs at least one column; this one has none")

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    def escape(text: str) -> str:
        escaped = text.replace("\\", "\\\\").replace("|", "\\|")
        return escaped.replace("\r\n", "<br>").replace("\n", "<br>").replace("\r", "<br>")

    lines = [
        line([escape(str(name)) for name in frame.columns]),
        line(["---:" if numeric else "---" for numeric in _numeric(frame)]),
    ]
    rows = frame.itertuples(index=False, name=None)
    lines += [line([escape(_cell(value)) for value in row]) for row in rows]
    return "\n".join(lines) + "\n"


def to_rich_table(frame: pd.DataFrame, title: str | None = None) -> TerminalTable:
    """Make a table for the terminal.

    Where a window is too narrow, columns of long texts, such as formulas, would leave no room for the others: they
    are listed below the table instead, a line a row, led by the row's first cell.

    Args:
        frame: any table; its index is left out.
        title: printed above it.

    Returns:
        What ``rich.console.Console.print`` takes; texts are taken literally, never as markup.
    """
    columns = [
        [str(name), *(_cell(value) for value in frame.iloc[:, place])] for place, name in enumerate(frame.columns)
    ]
    return TerminalTable(columns, _numeric(frame), title)


@dataclass(frozen=True)
class TerminalTable:
    """A table that fits the window it is printed in, as far as a column can be a character wide.

    Attributes:
        columns: for each column its heading and cells, as texts.
        numeric: for each column, whether it is aligned to the right.
        title: printed above the table.
    """

    columns: list[list[str]]
    numeric: list[bool]
    title: str | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table, with column widths for the window's, and the long texts."""
        kept = self._kept(options.max_width)
        # rich shrinks columns without regard to words, so that numbers would break; a space is on either side
        widths = _fit([self.columns[place] for place in kept], options.max_width - 2 * len(kept))
        table = Table(
            title=Text(self.title) if self.title else None, title_justify="left", box=box.SIMPLE_HEAD,
            pad_edge=False, padding=(0, 1, 0, 0),
        )  # fmt: skip
        for place, width in zip(kept, widths, strict=True):
            justify: JustifyMethod = "right" if self.numeric[place] else "left"
            table.add_column(Text(self.columns[place][0]), justify=justify, overflow="fold", width=width)
        for row in list(zip(*(self.columns[place] for place in kept), strict=True))[1:]:
            table.add_row(*map(Text, row))
        yield table
        for place, cells in self._numbered():
            if place not in kept:
                rows = zip(self.columns[0][1:], cells[1:], strict=True)
                yield Text("\n".join([f"{cells[0]}:", *(f"  {first}: {cell}" for first, cell in rows)]))

    def _kept(self, room: int) -> list[int]:
        """Return the places of columns that stay in the table: those of long texts leave it, the longest first."""
        widths = {place: max(map(cell_len, cells)) for place, cells in self._numbered()}
        kept = list(widths)
        long = [place for place, cells in self._numbered() if place > 0 and max(map(len, cells)) > _LONG_CELL]
        for place in sorted(long, key=lambda place: -widths[place]):
            if sum(widths[one] + 2 for one in kept) <= room:
                break
            kept.remove(place)
        return kept

    def _numbered(self) -> list[tuple[int, list[str]]]:
        return list(enumerate(self.columns))


def _fit(columns: Sequence[Sequence[str]], room: int) -> list[int]:
    """Return column widths that need no more than ``room``: whole cells, else whole words, else less."""
    whole = [max(1, *(cell_len(line) for cell in cells for line in cell.split("\n"))) for cells in columns]
    words = [max(1, *(cell_len(word) for word in " ".join(cells).split())) for cells in columns]
    widths = [1] * len(columns)
    for wanted in (words, whole):
        while sum(widths) < room and widths != wanted:
            # the narrowest of those that lack something: short words are whole before long ones grow
            short = [place for place, width in enumerate(widths) if width < wanted[place]]
            widths[min(short, key=lambda place: widths[place])] += 1
    return widths
