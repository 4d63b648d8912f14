"""One self-contained HTML page about one problem's evaluation: no network, and one script.

It queries nothing: it is told everything as plain rows, those of the views of the same names.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from panacea_lib.report.comparisons import comparison_lines
from panacea_lib.report.leaderboard import headline, leaderboard_tables
from panacea_lib.report.markup import Row, heading, number, section, table, text, with_interval
from panacea_lib.report.slider import SCRIPT, slider_panel
from panacea_lib.report.style import STYLE

_REWARD_MODELS = ["dimension", "accuracy", "majority", "length_only", "best_possible", "n"]


def report_page(
    *,
    title: str,
    description: str,
    card: Mapping[str, str],
    leaderboard: Sequence[Row],
    front: Sequence[Row],
    reward_models: Sequence[Row],
    pictures: Mapping[str, bytes],
    queries: Mapping[str, str],
    notes: Sequence[str] = (),
    comparisons: Sequence[Row] = (),
    slider: Mapping[str, Any] | None = None,
) -> str:
    """The page, as one string; sections with nothing to tell are left out.

    card: what, with what and how to make it again (data, models, keys, versions, date, command),
    shown as given. leaderboard and reward_models: rows of the views of those names. front: a row
    per λ of one policy with preference and rewards (dimension -> number), kl, and one sample's
    prompt and response. pictures: caption -> PNG. queries: what it tells -> SQL. notes: sentences
    a reader must know before believing the figures, such as an estimated ruler. comparisons: rows
    with method, other, metric, difference, low, high and verdict. slider: what
    `panacea_lib.report.slider_data` made.
    """
    shown = "".join(_picture(*item) for item in pictures.items())
    parts = [
        f"<h1>{text(title)}</h1>",
        f'<p class="lead">{text(description)}</p>' if description else "",
        headline(leaderboard) + _notes(notes),
        section("Move the slider", slider_panel(slider) if slider else ""),
        section("Leaderboard", leaderboard_tables(leaderboard)),
        section("Who beats whom", comparison_lines(comparisons)),
        section("Pictures", shown),
        section("What each preference gets", _front(front)),
        section("Reward models", _reward_models(reward_models)),
        section("What this is, and how to make it again", _card(card)),
        section("Ask in SQL", "".join(_query(*item) for item in queries.items())),
    ]
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>\n{_policy()}'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main>\n"
        + (f"<script>{SCRIPT}</script>\n" if slider else "")
        + "</body>\n</html>\n"
    )


def _policy() -> str:
    """The browser is told to fetch nothing, and to run and to style by nothing but our own."""
    ours = {"script-src": SCRIPT, "style-src": STYLE}
    hashes = "; ".join(f"{kind} 'sha256-{_sha256(source)}'" for kind, source in ours.items())
    rules = f"default-src 'none'; img-src data:; {hashes}; base-uri 'none'; form-action 'none'"
    return f'<meta http-equiv="Content-Security-Policy" content="{rules}"/>\n'


def _sha256(source: str) -> str:
    return base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()


def _card(card: Mapping[str, str]) -> str:
    rows = "".join(f"<dt>{text(k)}</dt><dd>{text(v)}</dd>\n" for k, v in card.items())
    return f"<dl>\n{rows}</dl>" if rows else ""


def _notes(notes: Sequence[str]) -> str:
    return "".join(f'<p class="note">{text(note)}</p>\n' for note in notes)


def _picture(caption: str, png: bytes) -> str:
    data = base64.b64encode(png).decode()
    return (
        f'<figure><img alt="{text(caption)}" src="data:image/png;base64,{data}"/>'
        f"<figcaption>{text(caption)}</figcaption></figure>\n"
    )


def _front(rows: Sequence[Row]) -> str:
    """λ, mean rewards, KL and one sample answer per row."""
    if not rows:
        return ""
    names = list(rows[0]["preference"])
    columns = ["λ = (" + ", ".join(text(name) for name in names) + ")"]
    columns += [text(name) for name in names] + ["KL", "a prompt", "and its answer"]
    body = []
    for row in rows:
        preference = ", ".join(f"{row['preference'][name]:.2g}" for name in names)
        rewards = [number(row["rewards"].get(name)) for name in names]
        words = [text(row.get(column) or "–") for column in ("prompt", "response")]
        body.append([f"({preference})", *rewards, number(row.get("kl")), *words])
    return table(columns, body, words=2)


def _reward_models(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    columns = [name for name in _REWARD_MODELS if any(name in row for row in rows)]
    figures = table(
        [heading(name) for name in columns],
        [[with_interval(row, name) for name in columns] for row in rows],
    )
    return (
        f"{figures}\n<p>Share of held-out pairs that each model orders as its label does. "
        "Majority: what always naming the commoner side gets. Length only: what always naming the "
        "longer response gets, or the shorter one. Best possible: what the noise of "
        "the labels leaves to a perfect model, where that is known.</p>"
    )


def _query(what: str, sql: str) -> str:
    return f"<p>{text(what)}</p>\n<pre><code>{text(sql)}</code></pre>\n"
