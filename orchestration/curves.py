"""How a training went, as rows of facts.training_curves."""

from typing import Any

import pyarrow as pa

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
