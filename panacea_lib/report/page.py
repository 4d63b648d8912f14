"""One self-contained HTML page about one problem's evaluation: no script, no network.

It queries nothing: it is told everything as plain rows, those of the views of the same names.
"""

import base64
import html
from collections.abc import Mapping, Sequence
from typing import Any

from panacea_lib.report.style import STYLE

Row = Mapping[str, Any]

_LEADERBOARD = {
    "method": "",
    "judge": "who scored the answers: gold (the embedded world's true scores) or proxy (the "
    "learned reward models)",
    "value_ratio": "the share of the attainable improvement that the method gets: 0 is the "
    "reference policy, 1 the optimum; in brackets a 95 % bootstrap interval over prompts. "
    "This is the figure to compare",
    "charged_hypervolume": "how much of the reward space the front covers when drifting from the "
    "reference policy is paid for (β·KL off every reward); larger is better",
    "hypervolume": "the same without that price, as papers report it; it pays for drift",
    "inner_product": "mean of λ·reward over the preference vectors; raw, larger is better",
    "sparsity": "mean squared gap between neighbours on the front; smaller is denser. "
    "A method with one point has none",
    "spacing": "how unevenly the points lie; 0 is even",
    "kl": "mean KL divergence from the reference policy, in nats: how far it drifted",
    "seconds": "training time",
    "n": "answers scored",
}
_REWARD_MODELS = ["dimension", "accuracy", "majority", "best_possible", "n"]
_HEADINGS = {"kl": "KL", "n": "n"}


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
) -> str:
    """The page, as one string.

    card: what, with what and how to make it again (data, models, keys, versions, date, command),
    shown as given. leaderboard and reward_models: rows of the views of those names. front: a row
    per λ of one policy with preference and rewards (dimension -> number), kl, and one sample's
    prompt and response. pictures: caption -> PNG. queries: what it tells -> SQL. notes: sentences
    a reader must know before believing the figures, such as an estimated ruler.
    """
    parts = [
        f"<h1>{_text(title)}</h1>",
        f'<p class="lead">{_text(description)}</p>' if description else "",
        _section("This problem", _card(card)),
        _section("Leaderboard", _leaderboard(leaderboard) + _notes(notes)),
        _section("Pictures", "".join(_picture(*item) for item in pictures.items())),
        _section("What each preference gets", _front(front)),
        _section("Reward models", _reward_models(reward_models)),
        _section("Ask in SQL", "".join(_query(*item) for item in queries.items())),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>\n'
        f"<title>{_text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def _text(value: object) -> str:
    """Escaped, so that whatever a model wrote is only read; control characters, which HTML
    forbids, show as U+FFFD."""
    clean = "".join(c if c >= " " or c in "\n\t" else "\ufffd" for c in str(value))
    return html.escape(clean)


def _number(value: object) -> str:
    """Three decimals for a fraction; thousands separated; a dash for what there is none of."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else _text(value)


def _heading(column: str) -> str:
    return _HEADINGS.get(column, _text(column.replace("_", " ")))


def _section(heading: str, body: str) -> str:
    """Nothing at all where there is nothing to tell."""
    return f"<section>\n<h2>{heading}</h2>\n{body}\n</section>" if body else ""


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], words: int = 0) -> str:
    """A table that scrolls by itself on a narrow screen; cells are HTML already. The last `words`
    columns hold sentences, the first a name, and those between numbers."""
    kinds = ["name"] + ["number"] * (len(columns) - 1 - words) + ["words"] * words
    head = "".join(
        f'<th class="{kind}">{name}</th>' for kind, name in zip(kinds, columns, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(f'<td class="{k}">{cell}</td>' for k, cell in zip(kinds, row, strict=True))
        + "</tr>\n"
        for row in rows
    )
    return (
        f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}</tbody>\n</table></div>"
    )


def _card(card: Mapping[str, str]) -> str:
    rows = "".join(f"<dt>{_text(k)}</dt><dd>{_text(v)}</dd>\n" for k, v in card.items())
    return f"<dl>\n{rows}</dl>" if rows else ""


def _with_interval(row: Row, column: str) -> str:
    """The figure, and its interval where the row has one."""
    low, high = row.get(f"{column}_low"), row.get(f"{column}_high")
    figure = _number(row.get(column))
    if low is None or high is None:
        return figure
    return f"{figure} <small>[{_number(low)}, {_number(high)}]</small>"


def _leaderboard(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    columns = [name for name in _LEADERBOARD if any(name in row for row in rows)]
    table = _table(
        [_heading(name) for name in columns],
        [[_with_interval(row, name) for name in columns] for row in rows],
    )
    words = "".join(
        f"<li><b>{_heading(name)}</b>: {_text(_LEADERBOARD[name])}.</li>\n"
        for name in columns
        if _LEADERBOARD[name]
    )
    return (
        f'{table}\n<details open="open"><summary>What the columns mean</summary>\n'
        f"<ul>\n{words}</ul></details>"
    )


def _notes(notes: Sequence[str]) -> str:
    return "".join(f'<p class="note">{_text(note)}</p>\n' for note in notes)


def _picture(caption: str, png: bytes) -> str:
    data = base64.b64encode(png).decode()
    return (
        f'<figure><img alt="{_text(caption)}" src="data:image/png;base64,{data}"/>'
        f"<figcaption>{_text(caption)}</figcaption></figure>\n"
    )


def _front(rows: Sequence[Row]) -> str:
    """λ, mean rewards, KL and one sample answer per row."""
    if not rows:
        return ""
    names = list(rows[0]["preference"])
    columns = ["λ = (" + ", ".join(_text(name) for name in names) + ")"]
    columns += [_text(name) for name in names] + ["KL", "a prompt", "and its answer"]
    body = []
    for row in rows:
        preference = ", ".join(f"{row['preference'][name]:.2g}" for name in names)
        rewards = [_number(row["rewards"].get(name)) for name in names]
        words = [_text(row.get(column) or "–") for column in ("prompt", "response")]
        body.append([f"({preference})", *rewards, _number(row.get("kl")), *words])
    return _table(columns, body, words=2)


def _reward_models(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    columns = [name for name in _REWARD_MODELS if any(name in row for row in rows)]
    table = _table(
        [_heading(name) for name in columns],
        [[_with_interval(row, name) for name in columns] for row in rows],
    )
    return (
        f"{table}\n<p>Share of held-out pairs that each model orders as its label does. Majority: "
        "what always naming the commoner side gets. Best possible: what the noise of the labels "
        "leaves to a perfect model, where that is known.</p>"
    )


def _query(what: str, sql: str) -> str:
    return f"<p>{_text(what)}</p>\n<pre><code>{_text(sql)}</code></pre>\n"
