"""Model cards of a problem's trained policies, with their figures from the warehouse."""

from orchestration.evaluated import evaluated_points
from orchestration.summary import leaderboard_rows
from panacea_lib.problem import Problem
from panacea_lib.report.model_card import Evaluated, model_card
from panacea_lib.warehouse import Warehouse


def card_text(
    warehouse: Warehouse,
    problem: Problem,
    method: str,
    base_place: str,
    front_key: str | None,
    frozen_at: dict[str, float] | None = None,
    has_slider: bool = False,
) -> str:
    """The card of a method by the evaluation `front_key`; without figures where it has none.

    The rest as `panacea_lib.report.model_card.model_card`. MissingUpstreamError where the
    evaluation measured other dimensions.
    """
    evaluated = _evaluated(warehouse, problem, method, front_key) if front_key else None
    return model_card(problem, method, base_place, evaluated, frozen_at, has_slider)


def _evaluated(
    warehouse: Warehouse, problem: Problem, method: str, front_key: str
) -> Evaluated | None:
    rows = leaderboard_rows(warehouse, problem.name, front_key)
    own = [row for row in rows if row["method"] == method]
    if not own:
        return None
    judge, names = own[0]["judge"], problem.dimension_names
    points = evaluated_points(warehouse, front_key, method, judge, names)
    return Evaluated(own[0], points)
