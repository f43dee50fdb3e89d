"""One page for terminal and Markdown: the same parts, in the same order, each where it fits."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure as Drawing
from rich.console import Console

from gploss.report.page import Figure, Note, Page, Section, Table


@pytest.fixture
def page() -> Page:
    table = Table(pd.DataFrame({"loss": ["bce [1]"], "formula": ["label|pred"]}), only_written=["formula"])
    figure = Figure("curves.png", Drawing(), "Values and gradients")
    parts = ["A paragraph.", Note("How it was made."), table, figure]
    return Page("Losses", "One is known.", [Section("Known", parts), Section("Nothing", [])])


def test_markdown_has_every_part_in_order(page: Page) -> None:
    assert page.markdown() == (
        "# Losses\n\nOne is known.\n\n## Known\n\nA paragraph.\n\nHow it was made.\n\n"
        "| loss | formula |\n| --- | --- |\n| bce [1] | label\\|pred |\n\n"
        "![Values and gradients](curves.png)\n\n## Nothing\n"
    )


def test_a_terminal_has_no_notes_and_ends_with_the_sentence(page: Page) -> None:
    console = Console(file=io.StringIO(), width=80, color_system=None)
    console.print(page)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert text.startswith("Losses\n") and text.rstrip().endswith("One is known.")
    assert "A paragraph." in text and "bce [1]" in text and "Known" in text
    assert "How it was made." not in text and "label|pred" not in text


def test_saving_writes_the_page_and_its_figures(page: Page, tmp_path: Path) -> None:
    page.save(tmp_path.joinpath, "page.md")
    assert {path.name for path in tmp_path.iterdir()} == {"page.md", "curves.png"}
    assert (tmp_path / "page.md").read_text() == page.markdown()
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_section_is_added_to_a_copy(page: Page) -> None:
    longer = page.with_section("Machine", "Some.")
    assert longer.markdown() == page.markdown() + "\n## Machine\n\nSome.\n"
    assert len(page.sections) == 2
