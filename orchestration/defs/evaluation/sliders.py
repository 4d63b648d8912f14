"""A slider for every learned method of a problem with two dimensions, fitted to its front."""

import numpy as np
import pyarrow as pa

from orchestration.stage import StageRun

_SCHEMA = pa.schema(
    [
        ("method", pa.string()),
        ("judge", pa.string()),
        ("calibrated", pa.bool_()),
        ("position", pa.float64()),
        ("dimension", pa.string()),
        ("weight", pa.float64()),
    ]
)


def with_sliders(run: StageRun, tables: dict[str, pa.Table]) -> dict[str, pa.Table]:
    """The tables of the fronts and, from them, the rows of facts.sliders: none unless m = 2.

    By the best judge; the reference policy heeds no λ and has none.
    """
    names, rows = run.problem.dimension_names, tables["front_rewards"].to_pylist()
    found: list[dict] = []
    if len(names) == 2:
        judge = min(row["judge"] for row in rows)  # 'gold' sorts before 'proxy'
        for method in run.plan.methods:
            if method != "reference":
                own = [r for r in rows if (r["method"], r["judge"]) == (method, judge)]
                found += _slider_rows(method, judge, names, own)
    return tables | {"sliders": pa.Table.from_pylist(found, _SCHEMA)}


def _slider_rows(method: str, judge: str, names: list[str], rows: list[dict]) -> list[dict]:
    """A row per knot and dimension, from the rows of one method's front."""
    from panacea_lib.evaluation.slider import fit_slider

    def matrix(column: str) -> np.ndarray:  # (G, 2)
        by_place = {(row["point"], row["dimension"]): row[column] for row in rows}
        points = sorted({row["point"] for row in rows})
        return np.array([[by_place[point, name] for name in names] for point in points])

    slider = fit_slider(matrix("weight"), matrix("reward"))
    told = {"method": method, "judge": judge, "calibrated": slider.calibrated}
    return [
        {**told, "position": position, "dimension": name, "weight": weight}
        for position, first in zip(slider.position, slider.weight, strict=True)
        for name, weight in zip(names, (first, 1 - first), strict=True)
    ]
