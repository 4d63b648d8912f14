"""How a training went, as rows of facts.training_curves."""

from typing import Any

import pyarrow as pa

SCALE = "scale/"  # metrics of one adapted matrix each, by its name

_SCHEMA = pa.schema(
    {
        "method": pa.string(),
        "step": pa.int64(),
        "dimension": pa.string(),
        "metric": pa.string(),
        "value": pa.float64(),
    }
)


def curves_table(
    method: str, curves: list[dict[str, Any]], dimension: str | None = None
) -> pa.Table:
    """The rows of a `TrainResult`; `dimension` replaces theirs."""
    columns = {name: [row[name] for row in curves] for name in _SCHEMA.names if name != "method"}
    if dimension is not None:
        columns["dimension"] = [dimension] * len(curves)
    return pa.table({"method": [method] * len(curves), **columns}, schema=_SCHEMA)


def last_values(curves: pa.Table) -> pa.Table:
    """Where each method's training ended: its last value of every metric.

    Of the scales of λ, of which every adapted matrix has one, the largest and the mean magnitude.
    """
    ends: dict[tuple[str, str, str], float] = {}
    scales: dict[str, dict[str, float]] = {}
    for row in sorted(curves.to_pylist(), key=lambda row: row["step"]):
        if row["metric"].startswith(SCALE):
            scales.setdefault(row["method"], {})[row["metric"]] = abs(row["value"])
        else:
            ends[row["method"], row["metric"], row["dimension"]] = row["value"]
    for method, found in scales.items():
        ends[method, "largest scale of λ", ""] = max(found.values())
        ends[method, "mean scale of λ", ""] = sum(found.values()) / len(found)
    columns = ("method", "metric", "dimension", "value")
    rows = sorted((*place, value) for place, value in ends.items())
    return pa.table(dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True)))
