"""Pieces of HTML: escaped text, figures, tables, sections."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]

_HEADINGS = {"kl": "KL", "n": "n", "igd_plus": "IGD+"}


def clean(value: object) -> str:
    """As text; control characters, which HTML forbids, become U+FFFD."""
    return "".join(c if c >= " " or c in "\n\t" else "\ufffd" for c in str(value))


def text(value: object) -> str:
    """Escaped, so that whatever a model wrote is only read."""
    return html.escape(clean(value))


def number(value: object) -> str:
    """Three decimals for a fraction; thousands separated; a dash for what there is none of."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else text(value)


def with_interval(row: Row, column: str) -> str:
    """The figure, and its interval where the row has one."""
    low, high = row.get(f"{column}_low"), row.get(f"{column}_high")
    figure = number(row.get(column))
    if low is None or high is None:
        return figure
    return f"{figure} <small>[{number(low)}, {number(high)}]</small>"


def heading(column: str) -> str:
    """A column's name as people read it."""
    return _HEADINGS.get(column, text(column.replace("_", " ")))


def section(title: str, body: str) -> str:
    """Nothing at all where there is nothing to tell."""
    return f"<section>\n<h2>{title}</h2>\n{body}\n</section>" if body else ""


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], words: int = 0, names: int = 1
) -> str:
    """A table that scrolls by itself on a narrow screen; cells are HTML already. The first `names`
    columns hold names, the last `words` sentences, and those between numbers."""
    kinds = ["name"] * names + ["number"] * (len(columns) - names - words) + ["words"] * words
    head = "".join(
        f'<th class="{kind}" scope="col">{name}</th>'
        for kind, name in zip(kinds, columns, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(f'<td class="{k}">{cell}</td>' for k, cell in zip(kinds, row, strict=True))
        + "</tr>\n"
        for row in rows
    )
    # Focusable, so that the arrow keys scroll it too.
    return (
        f'<div class="scroll" tabindex="0"><table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}</tbody>\n</table></div>"
    )


def explained(summary: str, words: Mapping[str, str]) -> str:
    """A list of what names mean, that folds away; keys are HTML already."""
    if not words:
        return ""
    items = "".join(f"<li><b>{name}</b>: {text(what)}.</li>\n" for name, what in words.items())
    return f'<details open="open"><summary>{summary}</summary>\n<ul>\n{items}</ul></details>'
