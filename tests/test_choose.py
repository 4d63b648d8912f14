"""Which λ to ask for: its laws, its figures, and the command on a real warehouse."""

import json
import math

import numpy as np
import pytest
from conftest import panacea
from hypothesis import given
from hypothesis import strategies as st
from small_warehouse import DIMENSIONS, GRID, dataset, front, generations

from orchestration.choose import choice_lines, choose_preference
from orchestration.prefer import parse_preference, preference_text
from panacea_lib.errors import InputError, MissingUpstreamError
from panacea_lib.evaluation.choose import (
    Estimate,
    FrontPoint,
    choose,
    cost_interval,
    probability_above,
)
from panacea_lib.problem import Dimension
from panacea_lib.problem_files import load_problem_named
from panacea_lib.warehouse import Warehouse
from panacea_lib.workspace import Workspace

FLOORS = {"harmlessness": 0.5}
reward = st.integers(-20, 20).map(lambda i: i / 10)


def points(rewards: list[tuple[float, float]], kl: float = 0.5) -> list[FrontPoint]:
    """A front with these means, half-widths of 0.1, and λ₁ rising from 0 to 1."""
    grid = np.linspace(0, 1, len(rewards))
    return [
        FrontPoint(
            point=i,
            preference={"helpfulness": first, "harmlessness": 1 - first},
            rewards={
                name: Estimate(mean, mean - 0.1, mean + 0.1)
                for name, mean in zip(DIMENSIONS, means, strict=True)
            },
            kl=Estimate(kl, kl, kl),
            n=64,
        )
        for i, (first, means) in enumerate(zip(grid, rewards, strict=True))
    ]


# ---- the library


@given(st.lists(st.tuples(reward, reward), min_size=1, max_size=11), reward)
def test_no_point_that_holds_the_floor_is_better(rewards, floor):
    front_points = points(rewards)
    holding = [means for means in rewards if means[1] >= floor]
    if not holding:
        with pytest.raises(InputError, match="the highest is") as refused:
            choose(front_points, {"harmlessness": floor}, "helpfulness")
        assert f"{max(r for _, r in rewards):.3f}" in str(refused.value)
        return
    found = choose(front_points, {"harmlessness": floor}, "helpfulness")
    assert found.chosen.rewards["harmlessness"].mean >= floor
    assert found.chosen.rewards["helpfulness"].mean == max(r for r, _ in holding)
    assert found.freest.rewards["helpfulness"].mean == max(r for r, _ in rewards)
    assert found.cost.mean == pytest.approx(max(r for r, _ in rewards) - max(r for r, _ in holding))
    assert found.sure["harmlessness"] >= 0.5, "its mean holds the floor"


def test_of_equals_the_one_that_drifted_least():
    one, other = points([(1.0, 1.0)], kl=2.0) + points([(1.0, 1.0)], kl=1.0)
    assert choose([one, other], FLOORS, "helpfulness").chosen is other


def test_a_floor_under_what_there_should_be_most_of_refuses_too_little():
    front_points = points([(-1.0, 1.0), (0.2, 0.6), (1.0, -1.0)])
    allowed = choose(front_points, FLOORS | {"helpfulness": 0.1}, "helpfulness")
    assert allowed.chosen.point == 1 and set(allowed.sure) == set(DIMENSIONS)
    with pytest.raises(InputError, match="together, though each alone is reached: the nearest has"):
        choose(front_points, FLOORS | {"helpfulness": 0.5}, "helpfulness")


def test_how_sure_it_is():
    assert probability_above(Estimate(0.5, 0.4, 0.6), 0.5) == 0.5
    assert probability_above(Estimate(0.5, 0.4, 0.6), 0.4) == pytest.approx(0.975, abs=1e-4)
    assert probability_above(Estimate(0.5, 0.4, 0.6), 0.6) == pytest.approx(0.025, abs=1e-4)
    assert probability_above(Estimate(0.5, 0.5, 0.5), 0.5) == 1  # an exact mean
    assert probability_above(Estimate(0.5, None, None), 0.6) == 0


def test_the_cost_is_paired_by_prompt():
    rng = np.random.default_rng(0)
    prompt = rng.normal(0, 5, 200)  # that prompts differ says nothing of the cost
    found = cost_interval(prompt + 1 + rng.normal(0, 0.1, 200), prompt)
    assert found.low is not None and found.high is not None
    assert found.low < found.mean < found.high and found.high - found.low < 0.05
    assert found.mean == pytest.approx(1, abs=0.03)


@given(st.integers(2, 10), st.randoms(use_true_random=False))
def test_a_preference_survives_being_written(m, random):
    draws = [-math.log(random.random() or 0.5) * random.choice([0, 1]) + 1e-9 for _ in range(m)]
    names = [f"dimension_{i}" for i in range(m)]
    preference = {n: d / sum(draws) for n, d in zip(names, draws, strict=True)}
    found = parse_preference(preference_text(preference), names)
    assert found == pytest.approx(preference, abs=2e-6)


# ---- the command


@pytest.fixture
def home(tmp_path, monkeypatch) -> Warehouse:
    """A workspace in which `tiny` was evaluated: small_warehouse's front, whose rewards are λ."""
    monkeypatch.setenv("PANACEA_HOME", str(tmp_path))
    warehouse = Warehouse(Workspace.current().warehouse)
    warehouse.save_products([*dataset("1"), *generations(), front("front1", 0.8)])
    for stage, part, key in [
        ("generations", "panacea", "gen-panacea"),
        ("pareto_front", "", "front1"),
    ]:
        warehouse.mark_current("tiny", stage, part, key)
    return warehouse


def tiny():
    return load_problem_named(Workspace.current(), "tiny")


def test_the_command_tells_the_preference_and_what_it_costs(home):
    asked = ("choose", "tiny", "--at-least", "harmlessness=0.45", "--most", "helpfulness")
    finished = panacea(*asked)
    assert finished.code == 0, finished.err
    first, *rest = finished.out.splitlines()
    assert first == "--prefer helpfulness=0.5,harmlessness=0.5"
    assert len(rest) == 4
    assert "helpfulness +0.50 (+0.40 to +0.60)" in rest[0] and "KL 0.30 (0.20 to 0.40)" in rest[0]
    assert "0.50 (0.50 to 0.50) of helpfulness" in rest[1] and "helpfulness=1" in rest[1]
    assert "83.6 % that harmlessness is at least 0.45" in rest[2]
    assert "normal approximation" in rest[2] and "single answers" in rest[2]
    assert "0 is the base model's mean, 1 its spread" in rest[3] and "gold" in rest[3]
    told = json.loads(panacea(*asked, "--json").out)
    assert told["prefer"] == "helpfulness=0.5,harmlessness=0.5"
    assert told["chosen"]["rewards"]["harmlessness"] == {"mean": 0.5, "low": 0.4, "high": 0.6}
    assert told["cost"]["mean"] == 0.5 and told["sure"]["harmlessness"] == pytest.approx(
        0.8365, abs=1e-4
    )


def test_what_cannot_be_had_exits_with_2_and_names_the_highest(home):
    finished = panacea("choose", "tiny", "--at-least", "harmlessness=9", "--most", "helpfulness")
    assert finished.code == 2 and finished.out == ""
    assert finished.err.strip() == (
        "no evaluated λ has harmlessness of at least 9: the highest is 1.000, at "
        "helpfulness=0,harmlessness=1; lower the floor"
    )


def test_what_was_not_evaluated_names_the_command(home):
    finished = panacea("choose", "demo3", "--at-least", "harmlessness=0", "--most", "helpfulness")
    assert finished.code == 1 and "panacea materialize demo3" in finished.err


def test_answers_that_are_not_the_front_s_give_no_interval(home):
    choice, judge = choose_preference(home, tiny(), "panacea_dpo", {}, "harmlessness")
    assert (judge, choice.cost.low) == ("gold", None)  # tiny shows no answers of panacea_dpo
    choice, judge = choose_preference(home, tiny(), "panacea", FLOORS, "helpfulness")
    assert choice.cost.low == choice.cost.high == 0.5
    home.save_products([front("front2", 0.8, judges=("proxy",))])
    home.mark_current("tiny", "pareto_front", "", "front2")
    choice, judge = choose_preference(home, tiny(), "panacea", FLOORS, "helpfulness")
    assert (judge, choice.cost.low) == ("proxy", None), "its answers have rewards of 1 more"
    assert "may flatter" in choice_lines(choice, "panacea", judge)


@pytest.mark.parametrize("method", ["optimum", "reference", "panacea_sft"])
def test_a_method_without_a_front_of_its_own_is_refused(home, method):
    with pytest.raises(InputError, match="that heeds λ"):
        choose_preference(home, tiny(), method, FLOORS, "helpfulness")


def test_renamed_dimensions_ask_for_another_evaluation(home):
    renamed = tiny().model_copy(
        update={"dimensions": [Dimension(name="helpfulness"), Dimension(name="safety")]}
    )
    with pytest.raises(MissingUpstreamError, match=r"harmlessness, helpfulness.*materialize"):
        choose_preference(home, renamed, "panacea", {}, "safety")


def test_every_point_can_be_chosen(home):
    for weights in GRID:
        floors = {"harmlessness": weights[1]}
        choice, _ = choose_preference(home, tiny(), "panacea", floors, "helpfulness")
        assert list(choice.chosen.preference.values()) == weights
