"""Rows of facts.front_rewards and facts.front_values as arrays, a front per method."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from panacea_lib.report.drawing import OPTIMUM, REFERENCE


class Front(NamedTuple):
    """One method's points by one judge: λ, mean rewards and the ends of their intervals, each of
    shape (G, m)."""

    weight: np.ndarray
    reward: np.ndarray
    low: np.ndarray
    high: np.ndarray


def fronts_of(front_rewards: pa.Table, dimensions: list[str], judge: str) -> dict[str, Front]:
    """method -> its front: the optimum first, so that it lies below and carries the labels, what
    was trained in the order of its rows, and the reference policy last.

    An optimum that is not known at every λ is left out: a line through what is known of it would
    say too much. ValueError where the judge has scored nothing.
    """
    rows = [row for row in front_rewards.to_pylist() if row["judge"] == judge]
    if not rows:
        raise ValueError(f"no front judged by {judge!r} to draw")
    methods = sorted(dict.fromkeys(row["method"] for row in rows), key=_place)
    grid = {row["point"] for row in rows}
    fronts = {}
    for method in methods:
        own = {(row["point"], row["dimension"]): row for row in rows if row["method"] == method}
        points = sorted({point for point, _ in own})
        if method == OPTIMUM and len(points) < len(grid):
            continue
        fronts[method] = Front(
            *(
                np.array([[own[point, name][column] for name in dimensions] for point in points])
                for column in ("weight", "reward", "reward_low", "reward_high")
            )
        )
    return fronts


def _place(method: str) -> int:
    """The optimum, what was trained in its order, and last what needs no training."""
    if method == OPTIMUM:
        return 0
    return 3 if method == REFERENCE else 2 if method.startswith("best_of_") else 1


def charged(front_rewards: pa.Table, front_values: pa.Table, beta: float) -> pa.Table:
    """The rows of front_rewards with J = E[r] − β·KL instead of E[r]; without intervals (low = high
    = J), as those of E[r] and KL do not tell J's."""
    kl = {(r["method"], r["judge"], r["point"]): r["kl"] for r in front_values.to_pylist()}
    rows = front_rewards.to_pylist()
    for row in rows:
        row["reward"] -= beta * kl[row["method"], row["judge"], row["point"]]
        row["reward_low"] = row["reward_high"] = row["reward"]
    return pa.Table.from_pylist(rows, front_rewards.schema)


def values_of(front_values: pa.Table, method: str, judge: str) -> dict[str, np.ndarray]:
    """Column -> its figures (G,) for one method, in the order of its points; no columns where the
    method has no row."""
    rows = [r for r in front_values.to_pylist() if (r["method"], r["judge"]) == (method, judge)]
    rows.sort(key=lambda row: row["point"])
    return {name: np.array([row[name] for row in rows]) for name in (rows[0] if rows else {})}


def judges_of(front_rewards: pa.Table) -> list[str]:
    """Who scored, the best first: gold sorts before proxy."""
    return sorted(set(front_rewards["judge"].to_pylist()))


def share_reached(values: Mapping[str, np.ndarray]) -> np.ndarray:
    """(V − V_ref) / (V* − V_ref) at every λ: the share of the attainable improvement, (G,)."""
    gained = values["value"] - values["reference_value"]
    return gained / (values["optimal_value"] - values["reference_value"])


def optimum_name(judge: str) -> str:
    """True scores enumerate every answer; the learned ones know only samples."""
    return "exact optimum" if judge == "gold" else "estimated optimum"
