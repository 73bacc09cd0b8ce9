"""Read the tables of a Wikipedia page, from wikitext or from saved HTML."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from audiobert.construct.prompts import printable
from audiobert.errors import needs

_LISTS = ("hlist", "ubl", "unbulleted list", "plainlist", "flatlist")
# Parts of a saved page that are not text of a cell: references, players, pictures, edit links.
_NOT_TEXT = "sup.reference, style, script, audio, video, figure, .mw-editsection, .noprint, .reference, .navbox"


@dataclass(frozen=True)
class Cell:
    """A cell of a table, with the number of rows and columns that it spans."""

    text: str
    header: bool
    rows: int = 1
    columns: int = 1


def is_html(page: str) -> bool:
    """Return whether a saved page is HTML; else it is read as wikitext."""
    start = page.lstrip()[:2000].lower()
    return start.startswith(("<!doctype html", "<html", "<div", "<table")) or "<body" in start or "<head" in start


def _number(value: Any) -> int:
    found = re.search(r"\d+", str(value or ""))
    return max(1, int(found[0])) if found else 1


def _wikitext_text(code: Any) -> str:
    """Return plain text of wikitext nodes; line breaks and list templates become new lines, references vanish."""
    from mwparserfromhell import nodes

    parts: list[str] = []
    for node in code.nodes:
        if isinstance(node, nodes.Text):
            parts.append(str(node))
        elif isinstance(node, nodes.HTMLEntity):
            parts.append(node.normalize())
        elif isinstance(node, nodes.Wikilink):
            if re.match(r"\s*(file|image|media|category)\s*:", str(node.title), re.IGNORECASE):
                continue
            parts.append(_wikitext_text(node.text) if node.text is not None else str(node.title))
        elif isinstance(node, nodes.ExternalLink):
            parts.append(_wikitext_text(node.title) if node.title is not None else "")
        elif isinstance(node, nodes.Template):
            parts.append(_template_text(node))
        elif isinstance(node, nodes.Tag):
            tag = str(node.tag).strip().lower()
            if tag in ("br", "li", "dt", "dd", "hr"):
                parts.append("\n")
            if tag not in ("ref", "br", "gallery", "timeline", "style", "table") and node.contents is not None:
                parts.append(_wikitext_text(node.contents))
    return "".join(parts)


def _template_text(node: Any) -> str:
    name = str(node.name).strip().lower()
    values = [_wikitext_text(parameter.value) for parameter in node.params if not parameter.showkey]
    if name in _LISTS:
        return "\n" + "\n".join(values) + "\n"
    if name == "music" and values:
        return {"flat": "♭", "b": "♭", "sharp": "♯", "#": "♯"}.get(values[0].strip().lower(), "")
    if name in ("sub", "sup", "nowrap", "nobr", "nobold", "small", "abbr", "plain link", "tooltip") and values:
        return values[0]
    if name in ("lang", "transl", "transliteration") and len(values) > 1:
        return values[1]
    if name.startswith("vert") or name == "br":
        return "\n"
    return ""


def _wikitext_tables(page: str) -> list[list[list[Cell]]]:
    with needs("mwparserfromhell", "construct"):
        from mwparserfromhell import parse

    tables = []
    for table in parse(page).filter_tags(matches=lambda node: node.tag == "table"):
        loose = _wikitext_cells(table)  # header cells that stand before the first row mark
        marked = [_wikitext_cells(row) for row in _tags(table, "tr")]
        tables.append([cells for cells in (loose, *marked) if cells])
    return tables


def _tags(node: Any, *names: str) -> list[Any]:
    """Return the tags of some names that stand directly in a tag."""
    inside = node.contents.filter_tags(recursive=False) if node.contents is not None else []
    return [tag for tag in inside if str(tag.tag).strip().lower() in names]


def _wikitext_cells(row: Any) -> list[Cell]:
    cells = []
    for node in _tags(row, "td", "th"):
        spans = [_number(node.get(name).value) if node.has(name) else 1 for name in ("rowspan", "colspan")]
        cells.append(Cell(_wikitext_text(node.contents), str(node.tag).strip().lower() == "th", *spans))
    return cells


def _html_tables(page: str) -> list[list[list[Cell]]]:
    with needs("beautifulsoup4", "construct"):
        from bs4 import BeautifulSoup

    soup = BeautifulSoup(page, "html.parser")
    for element in soup.select(_NOT_TEXT):
        element.decompose()
    for element in soup.find_all(["br", "li", "hr"]):
        element.insert_before("\n")
    tables = []
    for table in soup.find_all("table"):
        rows = []
        for row in table.find_all("tr"):
            if row.find_parent("table") is not table:
                continue
            cells = [
                Cell(cell.get_text(), cell.name == "th", _number(cell.get("rowspan")), _number(cell.get("colspan")))
                for cell in row.find_all(["td", "th"], recursive=False)
            ]
            if cells:
                rows.append(cells)
        tables.append(rows)
    return tables


def _grid(rows: Sequence[Sequence[Cell]]) -> list[list[Cell]]:
    """Return the table with cells that span rows or columns repeated in each place that they cover."""
    grid: list[list[Cell]] = []
    hanging: dict[int, tuple[Cell, int]] = {}
    for row in rows:
        line: list[Cell] = []
        waiting = list(row)
        while waiting or len(line) in hanging:
            if len(line) in hanging:
                cell, left = hanging.pop(len(line))
                if left > 1:
                    hanging[len(line)] = (cell, left - 1)
                line.append(cell)
                continue
            cell = waiting.pop(0)
            for _ in range(min(cell.columns, 50)):
                if cell.rows > 1:
                    hanging[len(line)] = (cell, cell.rows - 1)
                line.append(cell)
        grid.append(line)
    return grid


def read_tables(page: str) -> list[list[list[Cell]]]:
    """Read all tables of a page, row by row; a cell that spans several places stands in each of them."""
    return [_grid(rows) for rows in (_html_tables(page) if is_html(page) else _wikitext_tables(page))]


def one_line(text: str) -> str:
    """Return text on one line, in Unicode's composed form, without unprintable characters."""
    return printable(unicodedata.normalize("NFC", text))


def find_column(header: Sequence[Cell], pattern: str, *, start: bool = False, besides: int | None = None) -> int | None:
    """Return the index of the first column whose heading, in lower case, fits (from its start), or None."""
    fits = re.match if start else re.search
    headings = enumerate(one_line(cell.text).lower() for cell in header)
    return next((index for index, text in headings if index != besides and fits(pattern, text)), None)
