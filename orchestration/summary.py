"""A front and a leaderboard as rows, for the report and for the end of `panacea materialize`."""

from typing import Any

from panacea_lib.warehouse import Warehouse

_LEADERBOARD = """
select * exclude (problem, key, created_at, is_current) from leaderboard_history
where problem = $problem and key = $front order by value_ratio desc nulls last, method
"""
_COMPARISONS = """
select method, other, judge, metric, difference, low, high, verdict from comparisons_history
where problem = $problem and key = $front
    and judge = (select min(judge) from facts.front_values where key = $front)
order by metric, method, difference desc, other
"""
_FRONT = """
with answers as (
    select prompt_id, point, prompt, response from sample_responses_history
    where problem = $problem and key = $answers and sample = 0
),
telling as ( -- the held-out prompt whose answers differ most over λ
    select prompt_id from answers
    group by prompt_id order by count(distinct response) desc, prompt_id limit 1
)
select f.preference, f.rewards, f.judge, f.kl, f.value, f.optimal_value, a.prompt, a.response
from pareto_front_history f
left join (from answers semi join telling using (prompt_id)) a using (point)
where f.problem = $problem and f.key = $front and f.method = 'panacea'
    and f.judge = (select min(judge) from facts.front_values where key = $front)
order by f.point
"""
_TELLING = """
with judged as (select min(judge) as judge from facts.generation_rewards where key = $panacea),
scored as (
    select g.prompt_id, g.point, r.dimension, avg(r.reward) as reward
    from facts.generations g join facts.generation_rewards r using (key, generation_id)
    where g.key = $panacea and r.judge = (select judge from judged)
    group by all
),
moves as (
    select prompt_id, dimension, var_pop(reward) as moved from scored group by all
),
telling as ( -- the prompts whose answers' mean rewards move most over λ
    select prompt_id, sum(moved) as moved from moves
    group by prompt_id order by moved desc, prompt_id limit $prompts
)
select a.prompt_id, a.prompt, a.method, a.point, a.response
from sample_responses_history a join telling using (prompt_id)
where a.problem = $problem and list_contains($answers, a.key) and a.sample = 0
order by telling.moved desc, a.prompt_id, a.method, a.point
"""


def leaderboard_rows(warehouse: Warehouse, problem: str, front_key: str) -> list[dict[str, Any]]:
    """The rows of the view leaderboard for one evaluation, best first."""
    keys = {"problem": problem, "front": front_key}
    return warehouse.read(_LEADERBOARD, keys).to_pylist()


def comparison_rows(warehouse: Warehouse, problem: str, front_key: str) -> list[dict[str, Any]]:
    """The rows of the view comparisons for one evaluation, by the best judge."""
    keys = {"problem": problem, "front": front_key}
    return warehouse.read(_COMPARISONS, keys).to_pylist()


def front_rows(
    warehouse: Warehouse, problem: str, front_key: str, answers_key: str
) -> list[dict[str, Any]]:
    """A row per λ of Panacea's front: preference, rewards by the best judge (gold before proxy),
    kl, value, optimal_value, and a prompt with one sample answer."""
    keys = {"problem": problem, "front": front_key, "answers": answers_key}
    return warehouse.read(_FRONT, keys).to_pylist(maps_as_pydicts="strict")


def telling_answers(
    warehouse: Warehouse, problem: str, answers_keys: dict[str, str], prompts: int
) -> list[dict[str, Any]]:
    """The first sample of every method (method -> key of its generations) at every λ, for the
    held-out prompts where Panacea's rewards by the best judge move most over λ."""
    keys = {"problem": problem, "panacea": answers_keys["panacea"], "prompts": prompts}
    return warehouse.read(_TELLING, keys | {"answers": list(answers_keys.values())}).to_pylist()
