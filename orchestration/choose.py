"""`panacea choose`: which λ to ask for, told from the front that was measured."""

from dataclasses import asdict, replace
from typing import Any

import numpy as np

from orchestration.evaluated import best_judge, current_front, evaluated_points
from orchestration.prefer import preference_text
from panacea_lib.errors import InputError, MissingUpstreamError
from panacea_lib.evaluation.choose import Choice, Estimate, choose, cost_interval
from panacea_lib.problem import Problem
from panacea_lib.problem_errors import nearest
from panacea_lib.warehouse import Warehouse

_METHODS = """
select distinct method from facts.front_rewards
where key = ? and method not in ('optimum', 'reference', 'best_of_16') order by method
"""
_BY_PROMPT = """
select g.point, g.prompt_id, avg(r.reward) as reward
from facts.current c
join facts.generations g on g.key = c.key
join facts.generation_rewards r on r.key = g.key and r.generation_id = g.generation_id
where c.problem = ? and c.stage = 'generations' and c.part = ? and r.judge = ? and r.dimension = ?
group by all order by all
"""
_UNITS = {
    "gold": "rewards are the embedded world's true ones (gold)",
    "proxy": "rewards are the learned reward models' own (proxy), which may flatter",
}


def choose_preference(
    warehouse: Warehouse, problem: Problem, method: str, floors: dict[str, float], most: str
) -> tuple[Choice, str]:
    """The choice among the method's evaluated points by the best judge, and that judge.

    MissingUpstreamError where the problem was not evaluated, or with other dimensions; InputError
    for a method that heeds no λ or was not evaluated, and for floors that no point holds.
    """
    front_key = current_front(warehouse, problem.name)
    if front_key is None:
        raise MissingUpstreamError(
            f"{problem.name} has no front yet; run `panacea materialize {problem.name}`"
        )
    methods = warehouse.read(_METHODS, [front_key])["method"].to_pylist()
    if method not in methods:
        raise InputError(
            f"--method: the front of {problem.name} has no {method!r} that heeds λ "
            f"({nearest(method, methods)})"
        )
    judge = best_judge(warehouse, front_key)
    points = evaluated_points(warehouse, front_key, method, judge, problem.dimension_names)
    choice = choose(points, floors, most)
    return replace(choice, cost=_cost(warehouse, problem.name, method, judge, choice)), judge


def _cost(warehouse: Warehouse, problem: str, method: str, judge: str, choice: Choice) -> Estimate:
    """The cost with its paired interval, where the answers that the front was measured on are
    still the method's; without one where they are not."""
    rows = warehouse.read(_BY_PROMPT, [problem, method, judge, choice.most]).to_pydict()
    point, reward = np.array(rows["point"]), np.array(rows["reward"])
    freest, chosen = (reward[point == p.point] for p in (choice.freest, choice.chosen))
    told = [p.rewards[choice.most].mean for p in (choice.freest, choice.chosen)]
    if len(freest) == 0 or len(freest) != len(chosen):
        return choice.cost
    if not np.allclose([freest.mean(), chosen.mean()], told, rtol=0, atol=1e-6):
        return choice.cost
    return cost_interval(freest, chosen)


def choice_lines(choice: Choice, method: str, judge: str) -> str:
    """The choice for people."""
    chosen, most = choice.chosen, choice.most
    means = [f"{name} {_signed(estimate)}" for name, estimate in chosen.rewards.items()]
    lines = [
        f"--prefer {preference_text(chosen.preference)}",
        f"  mean rewards  {', '.join(means)}; KL {_plain(chosen.kl)} nats",
    ]
    if chosen is choice.freest:
        lines.append(f"  cost          none: no evaluated λ has more {most}")
    else:
        freest = choice.freest
        lines.append(
            f"  cost          {_plain(choice.cost)} of {most}: without a floor it could be "
            f"{_signed(freest.rewards[most])}, at {preference_text(freest.preference)}"
        )
    for name, floor in choice.floors.items():
        lines.append(
            f"  how sure      {_percent(choice.sure[name])} that {name} is at least {floor:g} on "
            "average over other such prompts (a normal approximation); single answers vary more"
        )
    lines.append(
        "  units         0 is the base model's mean, 1 its spread within prompts; "
        f"{_UNITS[judge]}; in parentheses 95 % intervals over prompts; "
        f"{chosen.n:,} answers of {method} at this λ"
    )
    return "\n".join(lines)


def choice_json(choice: Choice, method: str, judge: str) -> dict[str, Any]:
    """The choice for programs."""
    return {
        "prefer": preference_text(choice.chosen.preference),
        "method": method,
        "judge": judge,
        "units": "0 is the base model's mean, 1 its spread within prompts; KL in nats",
        **asdict(choice),
    }


def _signed(estimate: Estimate) -> str:
    return f"{estimate.mean:+.2f}{_interval(estimate, '+')}"


def _plain(estimate: Estimate) -> str:
    return f"{estimate.mean:.2f}{_interval(estimate, '')}"


def _interval(estimate: Estimate, sign: str) -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    return f" ({estimate.low:{sign}.2f} to {estimate.high:{sign}.2f})"


def _percent(share: float) -> str:
    """Never 0 or 100 % where it is neither."""
    if share > 0.999:
        return "more than 99.9 %" if share < 1 else "100 %"
    return f"{share:.1%}".replace("%", " %") if share >= 0.001 else "less than 0.1 %"
