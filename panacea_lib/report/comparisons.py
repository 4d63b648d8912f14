"""Who beats whom: paired differences between methods, in words."""

from collections.abc import Sequence

from panacea_lib.report.markup import Row, heading, table, text

_VERDICTS = {"better": "beats", "no difference shown": "and"}


def comparison_lines(rows: Sequence[Row]) -> str:
    """A sentence per pair of methods for the value ratio, a table for the other metrics.

    Rows have method, other, metric, difference (the method's figure less the other's), its
    interval low and high, and a verdict: better, worse or no difference shown. Of the two rows of
    a pair the one that is not behind is told.
    """
    rows = [row for row in rows if _is_ahead(row)]
    if not rows:
        return ""
    told = "".join(_sentence(row) for row in rows if row["metric"] == "value_ratio")
    others = [row for row in rows if row["metric"] != "value_ratio"]
    body = f'<ul class="verdicts">\n{told}</ul>\n' if told else ""
    if others:
        columns = ["method", "other", "metric", "verdict", "difference", "interval"]
        cells = [
            [
                *(text(row[name]) for name in ("method", "other")),
                heading(row["metric"]),
                text(row["verdict"]),
                _signed(row["difference"]),
                _ends(row),
            ]
            for row in others
        ]
        body += (
            "<details><summary>By the other figures</summary>\n"
            f"{table(columns, cells, names=4)}</details>\n"
        )
    return (
        f"{body}<p>Difference: the first method's figure less the other's, with a 95 % bootstrap "
        "interval over the same prompts for both. Where the interval holds 0, no difference is "
        "shown. Other seeds may differ by more.</p>"
    )


def _is_ahead(row: Row) -> bool:
    difference = row["difference"] or 0.0
    return difference > 0 or (difference == 0 and row["method"] < row["other"])


def _sentence(row: Row) -> str:
    verdict = row["verdict"]
    method, other = text(row["method"]), text(row["other"])
    told = f"<b>{method}</b> {_VERDICTS[verdict]} <b>{other}</b>: "
    if verdict == "no difference shown":
        told += f"{verdict}, "
    figures = f"{heading(row['metric'])} {_signed(row['difference'])} <small>{_ends(row)}</small>"
    return f'<li class="{verdict.split()[0]}">{told}{figures}</li>\n'


def _signed(value: float | None) -> str:
    """With its sign, the true minus; a dash for what there is none of."""
    return "–" if value is None else f"{value:+.3f}".replace("-", "−")


def _ends(row: Row) -> str:
    if row["low"] is None or row["high"] is None:
        return "–"
    return f"[{row['low']:.3f}, {row['high']:.3f}]".replace("-", "−")
