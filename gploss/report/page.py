"""One page about a run: a sentence, tables and figures, for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import pandas as pd
from matplotlib.figure import Figure as Drawing
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from gploss.files.whole import write_text_atomic
from gploss.report.plots import save as save_figure
from gploss.report.tables import to_markdown, to_rich_table


@dataclass(frozen=True, eq=False)
class Table:
    """A table.

    Attributes:
        frame: its rows, for people; the index is left out.
        only_written: columns that a terminal has no room for.
    """

    frame: pd.DataFrame
    only_written: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class Figure:
    """A figure in a file of its own.

    Attributes:
        name: of the file, ending in ".png".
        drawing: what it shows.
        caption: what to see in it.
    """

    name: str
    drawing: Drawing
    caption: str


@dataclass(frozen=True)
class Note:
    """A paragraph that only the written page has: how figures came about."""

    text: str


#: A plain text is a paragraph.
Part: TypeAlias = str | Note | Table | Figure


@dataclass(frozen=True, eq=False)
class Section:
    """Parts under a heading.

    Attributes:
        heading: in words.
        parts: in their order.
    """

    heading: str
    parts: Sequence[Part]


@dataclass(frozen=True, eq=False)
class Page:
    """What a run came to.

    Attributes:
        title: in words.
        sentence: the result in a sentence or two; empty where there is none to give.
        sections: the rest.

    Example:
        >>> table = Table(pd.DataFrame({"loss": ["bce"], "AUC": [0.8]}))
        >>> print(Page("Losses", "One loss.", [Section("Known", [table])]).markdown(), end="")
        # Losses
        <BLANKLINE>
        One loss.
        <BLANKLINE>
        ## Known
        <BLANKLINE>
        | loss | AUC |
        | --- | ---: |
        | bce | 0.8 |
    """

    title: str
    sentence: str
    sections: Sequence[Section]

    def with_section(self, heading: str, *parts: Part) -> Page:
        """Return the page with one more section at its end."""
        return replace(self, sections=[*self.sections, Section(heading, parts)])

    def figures(self) -> list[Figure]:
        """Return all figures, in their order."""
        return [part for section in self.sections for part in section.parts if isinstance(part, Figure)]

    def markdown(self) -> str:
        """Return the page as Markdown; figures are links to their files."""
        blocks = [f"# {self.title}", self.sentence]
        for section in self.sections:
            blocks += [f"## {section.heading}", *(_markdown(part) for part in section.parts)]
        return "\n\n".join(block for block in blocks if block) + "\n"

    def save(self, path_of: Callable[[str], Path], name: str = "summary.md") -> None:
        """Write the page as Markdown, and its figures beside it.

        Args:
            path_of: where a file of a name goes, such as ``Path("results").joinpath``.
            name: of the page's file.

        Raises:
            OSError: a file cannot be written; each is written whole or not at all.
        """
        for figure in self.figures():
            save_figure(figure.drawing, path_of(figure.name))
        write_text_atomic(path_of(name), self.markdown())

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the page for a terminal: the sentence last, where a reader looks first."""
        yield Text(self.title, style="bold")
        for section in self.sections:
            for part in section.parts:
                if isinstance(part, Table):
                    yield to_rich_table(part.frame.drop(columns=list(part.only_written)), section.heading)
                elif isinstance(part, str):
                    yield Text(f"{part}\n")
        if self.sentence:
            yield Text(self.sentence)


def _markdown(part: Part) -> str:
    if isinstance(part, Table):
        return to_markdown(part.frame).rstrip("\n")
    if isinstance(part, Figure):
        return f"![{part.caption}]({part.name})"
    return part.text if isinstance(part, Note) else part
