"""The evaluated points of one method as the warehouse has them: for `panacea choose` and cards."""

from collections import defaultdict
from collections.abc import Sequence

from panacea_lib.errors import MissingUpstreamError
from panacea_lib.evaluation.choose import Estimate, FrontPoint
from panacea_lib.warehouse import Warehouse

_KEY = "select key from facts.current where problem = ? and stage = 'pareto_front'"
# 'gold' sorts before 'proxy': the best judge a front has is the smaller word.
_JUDGE = "select min(judge) as judge from facts.front_rewards where key = ?"
_POINTS = """
select r.point, r.dimension, r.weight, r.reward, r.reward_low, r.reward_high,
    v.kl, v.kl_low, v.kl_high, v.n
from facts.front_rewards r
join facts.front_values v using (key, method, judge, point)
where r.key = ? and r.method = ? and r.judge = ?
order by r.point
"""


def current_front(warehouse: Warehouse, problem: str) -> str | None:
    """The key of the front that the problem shows today; None where it shows none."""
    if not warehouse.snapshot.exists():
        return None
    keys = warehouse.read(_KEY, [problem])["key"].to_pylist()
    return keys[0] if keys else None


def best_judge(warehouse: Warehouse, front_key: str) -> str:
    """gold where there is one, else proxy."""
    return warehouse.read(_JUDGE, [front_key])["judge"][0].as_py()


def evaluated_points(
    warehouse: Warehouse, front_key: str, method: str, judge: str, dimensions: Sequence[str]
) -> list[FrontPoint]:
    """The points of one method by one judge, in the order of the grid; [] where it has none.

    MissingUpstreamError where the front was measured on other dimensions.
    """
    by_point: dict[int, dict[str, dict]] = defaultdict(dict)
    for row in warehouse.read(_POINTS, [front_key, method, judge]).to_pylist():
        by_point[row["point"]][row["dimension"]] = row
    for rows in by_point.values():
        if set(rows) != set(dimensions):
            raise MissingUpstreamError(
                f"the last evaluation measured {', '.join(sorted(rows))}, but the problem's "
                f"dimensions are {', '.join(dimensions)} now: materialize the problem again"
            )
    return [_point(point, rows, dimensions) for point, rows in by_point.items()]


def _point(point: int, rows: dict[str, dict], dimensions: Sequence[str]) -> FrontPoint:
    def estimate(row: dict, figure: str) -> Estimate:
        return Estimate(row[figure], row[f"{figure}_low"], row[f"{figure}_high"])

    first = rows[dimensions[0]]
    return FrontPoint(
        point=point,
        preference={name: rows[name]["weight"] for name in dimensions},
        rewards={name: estimate(rows[name], "reward") for name in dimensions},
        kl=estimate(first, "kl"),
        n=first["n"],
    )
