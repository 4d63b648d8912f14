"""What a reader must know before believing an evaluation: for its checks and for its page."""

from typing import Any

from panacea_lib.warehouse import Warehouse

_RULER = """
select samples, effective_samples, points_refused, samples_needed from ruler_history
where problem = ? and key = ? and judge = ?
"""
_UNSEEN = """
select method, metric, value from facts.front_metrics
where key = ? and judge = ? and metric in ('points_outside', 'charged_points_outside') and value > 0
order by method, metric
"""


def ruler_quality(
    warehouse: Warehouse, problem: str, front_key: str, judge: str
) -> dict[str, Any] | None:
    """The row of the view ruler for one evaluation and judge; None where the optimum is exact."""
    rows = warehouse.read(_RULER, [problem, front_key, judge]).to_pylist()
    return rows[0] if rows else None


def estimated_optimum(ruler: dict[str, Any]) -> str:
    """What an estimated optimum does to value ratios (benchmarks/ruler.md)."""
    return (
        f"The optimum of a real model is estimated, here from {ruler['samples']} answers of the "
        "reference policy to each prompt, and the estimate is too low: value ratios read high (by "
        "0.015 to 0.03 at 16 answers in the embedded world, by nothing that could be seen at 64). "
        "Rewards are the learned models' own (proxy)."
    )


def refused_points(ruler: dict[str, Any]) -> str | None:
    """Where the optimum's rewards are not shown, and what would help; None where they all are."""
    if not ruler["points_refused"]:
        return None
    return (
        f"At {ruler['points_refused']} preference vectors the optimum's rewards are not shown: "
        f"importance weights leave as few as {ruler['effective_samples']:.1f} of the "
        f"{ruler['samples']} answers there, and about {ruler['samples_needed']} would be needed "
        "(more evaluation.samples, or a larger β). Figures that need the whole front of the "
        "optimum are left empty."
    )


def unseen_points(warehouse: Warehouse, front_key: str, judge: str) -> str | None:
    """The methods that the hypervolume's reference point dominates at some λ; None for none."""
    rows = warehouse.read(_UNSEEN, [front_key, judge]).to_pylist()
    if not rows:
        return None
    charged = {"points_outside": "", "charged_points_outside": "KL-charged "}
    points = [f"{row['value']:.0f} {charged[row['metric']]}of {row['method']}" for row in rows]
    return (
        "Some points lie below the hypervolume's reference point, which counts them as nothing: "
        f"{', '.join(points)}."
    )
