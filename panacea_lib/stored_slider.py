"""The calibrated slider of a problem as its last evaluation stored it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from panacea_lib.errors import InputError, MissingUpstreamError
from panacea_lib.warehouse import Warehouse

if TYPE_CHECKING:
    from panacea_lib.evaluation.slider import Slider

# A snapshot that was published before there were sliders has no such table.
_TABLE = "select 1 from duckdb_tables() where schema_name = 'facts' and table_name = 'sliders'"
_ROWS = """
select position, dimension, weight, calibrated from facts.sliders
where method = $method and key = coalesce(
    $front, (select key from facts.current where problem = $problem and stage = 'pareto_front'))
order by position
"""


def check_position(dimensions: Sequence[str], t: float) -> None:
    """InputError unless there are two dimensions and t lies in [0, 1]."""
    if len(dimensions) != 2:
        raise InputError(
            f"a slider goes between two dimensions, and there are {len(dimensions)} "
            f"({', '.join(dimensions)}); name their weights instead"
        )
    if not 0 <= t <= 1:
        raise InputError(
            f"a slider's position is a number from 0 (all weight on {dimensions[1]}) to 1 (all on "
            f"{dimensions[0]}), not {t}"
        )


def stored_slider(
    warehouse: Warehouse,
    problem: str,
    method: str,
    dimensions: Sequence[str],
    front_key: str | None = None,
) -> "Slider":
    """The slider from the front that the problem shows today, or from another, for two dimensions.

    InputError for the reference policy, which heeds no λ; MissingUpstreamError where the method
    was not evaluated, or with other dimensions.
    """
    if method == "reference":
        raise InputError("the reference policy heeds no λ, so it has no slider; ask another method")
    rows: list[dict] = []
    if warehouse.snapshot.exists() and warehouse.read(_TABLE).num_rows:
        asked = {"problem": problem, "method": method, "front": front_key}
        rows = warehouse.read(_ROWS, asked).to_pylist()
    slider = slider_of(rows, dimensions)
    if slider is None:
        raise MissingUpstreamError(
            f"{problem} has no slider for {method} and its dimensions as they are now; run "
            f"`panacea materialize {problem}`"
        )
    return slider


def slider_of(rows: Sequence[Mapping[str, Any]], dimensions: Sequence[str]) -> "Slider | None":
    """The slider in one method's rows of facts.sliders, which rise in position; None where they
    are none, or of other dimensions."""
    from panacea_lib.evaluation.slider import Slider

    first = [row for row in rows if row["dimension"] == dimensions[0]]
    # It rises towards what was the first dimension when it was made.
    if {row["dimension"] for row in rows} != set(dimensions) or first[0]["weight"] != 0:
        return None
    position, weight = (np.array([row[name] for row in first]) for name in ("position", "weight"))
    return Slider(position, weight, first[0]["calibrated"])
