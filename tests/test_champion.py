"""The gate, the champion's log on a real warehouse, and the whole of it on the chain of `tiny`."""

import json
import shutil
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from conftest import panacea
from hypothesis import given
from hypothesis import strategies as st
from small_warehouse import DIMENSIONS, candidate, champions, dataset, front

from orchestration.defs.evaluation.challenge import decision_before, incomparable
from orchestration.stage import StageRun
from panacea_lib.artifact_store import ArtifactStore
from panacea_lib.champions import (
    ChampionChangedError,
    ChampionEvent,
    champion_events,
    champion_in,
    champion_of,
    promoted_by_hand,
    record,
    reigning,
    rolled_back,
    was_rolled_back,
)
from panacea_lib.errors import InputError, MissingUpstreamError
from panacea_lib.evaluation.bootstrap import Figure, resamples
from panacea_lib.evaluation.gate import decide, levels
from panacea_lib.evaluation.samples import PromptMeans
from panacea_lib.policy import load_policy
from panacea_lib.problem import Problem
from panacea_lib.problem_files import load_problem_named
from panacea_lib.warehouse import Product, Warehouse
from panacea_lib.workspace import Workspace

PROMPT = "how do i bake bread today"
number = st.floats(-2, 2, allow_nan=False)
floors_set = st.dictionaries(st.sampled_from(DIMENSIONS), number)
LEVEL = {"helpfulness": Figure(0.4, 0.3, 0.5), "harmlessness": Figure(0.1, -0.1, 0.3)}


@st.composite
def figures(draw) -> Figure:
    """A figure with an interval around it, or without one."""
    low, value, high = sorted(draw(st.tuples(number, number, number)))
    return draw(st.sampled_from([Figure(value, low, high), Figure(value)]))


# ---- the gate


@given(figures(), floors_set, st.tuples(figures(), figures()))
def test_promoted_exactly_where_the_interval_is_above_0_and_every_floor_holds(
    difference, floors, level
):
    by_name = dict(zip(DIMENSIONS, level, strict=True))
    verdict = decide("value_ratio", difference, by_name, floors)
    better = difference.low is not None and difference.low > 0
    lows = {name: by_name[name].low for name in floors}
    held = all(low is not None and low >= floors[name] for name, low in lows.items())
    assert verdict.promoted == (better and held)
    assert verdict.reason


@pytest.mark.parametrize(
    ("difference", "floors", "said"),
    [
        (Figure(0.1, 0.05, 0.2), {}, "is better than the rival's by +0.100 (+0.050 to +0.200)"),
        (Figure(0.1, -0.05, 0.2), {}, "not better than the rival's beyond chance"),
        (Figure(-0.1, -0.2, -0.05), {}, "worse than the rival's by -0.100"),
        (Figure(0.1), {}, "+0.100 (no interval)"),
        (Figure(None), {}, "(no figure)"),
        (Figure(0.1, 0.05, 0.2), {"helpfulness": 0.2}, "every floor holds (helpfulness)"),
        (Figure(0.1, 0.05, 0.2), {"harmlessness": 0.0}, "not safely at its floor of 0"),
    ],
)
def test_the_reason_is_told(difference, floors, said):
    assert said in decide("value_ratio", difference, LEVEL, floors, "the rival").reason


def test_a_level_is_the_mean_over_prompts_and_all_preferences():
    reward = np.arange(3 * 4 * 2, dtype=float).reshape(3, 4, 2)
    means = PromptMeans("panacea", reward, np.zeros((3, 4)), None, np.full(3, 4), 12)
    found = levels(means, DIMENSIONS, resamples(4, 100, 0))
    for i, name in enumerate(DIMENSIONS):
        assert found[name].value == pytest.approx(reward[:, :, i].mean())
        assert found[name].low < found[name].value < found[name].high


def test_floors_are_of_known_dimensions():
    values = load_problem_named(Workspace.current(), "tiny").model_dump(mode="json")
    assert values["champion"] == {"metric": "value_ratio", "floors": {}}
    Problem.model_validate(values | {"champion": {"floors": {"harmlessness": 0}}})
    with pytest.raises(ValueError, match=r"champion\.floors: dimensions does not name \['harm'\]"):
        Problem.model_validate(values | {"champion": {"floors": {"harm": 0}}})
    with pytest.raises(ValueError, match="metric"):
        Problem.model_validate(values | {"champion": {"metric": "hypervolume"}})


# ---- the log


@pytest.fixture
def warehouse(tmp_path) -> Warehouse:
    """`demo` with a champion `second` after `first`, and `weak` refused between."""
    found = Warehouse(tmp_path / "w.duckdb")
    champions(found)
    return found


def champion(warehouse: Warehouse) -> str:
    return champion_of(warehouse, "demo").policy_key


def test_the_champion_is_of_the_last_event_that_is_no_refusal(warehouse):
    assert champion(warehouse) == "second"
    record(warehouse, candidate("third", action="refused", incumbent_key="second"))
    assert champion(warehouse) == "second"
    assert [e.policy_key for e in reigning(champion_events(warehouse, "demo"))] == [
        "first",
        "second",
    ]
    assert champion_events(warehouse, "other") == []
    assert champion_in([]) is None


def test_no_champion_says_how_to_have_one(tmp_path, warehouse):
    nothing = Warehouse(tmp_path / "none.duckdb")
    for of in (nothing, warehouse):
        with pytest.raises(MissingUpstreamError, match="panacea materialize other"):
            champion_of(of, "other")
    with pytest.raises(MissingUpstreamError, match="it has had none"):
        rolled_back("other", champion_events(warehouse, "other"), "", "user a")


def test_a_decision_about_another_champion_changes_nothing(warehouse):
    """Two decide against `first` at once: the second to come is told so."""
    before = champion_events(warehouse, "demo"), warehouse.snapshot.read_bytes()
    for incumbent in ("first", None):
        with pytest.raises(ChampionChangedError, match=r"is second now.*nothing was changed"):
            record(warehouse, candidate("third", incumbent_key=incumbent))
    assert (champion_events(warehouse, "demo"), warehouse.snapshot.read_bytes()) == before


def test_a_switch_that_dies_changes_nothing(warehouse, monkeypatch):
    """In the transaction after the row was written, before it is committed."""
    from panacea_lib.warehouse import writer

    before = champion_events(warehouse, "demo"), warehouse.snapshot.read_bytes()
    real = writer.database.connect_to_write

    class Dying:
        def __init__(self, connection) -> None:
            self.real = connection

        def __getattr__(self, name):
            return getattr(self.real, name)

        def commit(self) -> None:
            raise RuntimeError("the power went out")

    monkeypatch.setattr(writer.database, "connect_to_write", lambda *a: Dying(real(*a)))
    with pytest.raises(RuntimeError, match="power"):
        record(warehouse, candidate("third", incumbent_key="second"))
    monkeypatch.undo()
    assert (champion_events(warehouse, "demo"), warehouse.snapshot.read_bytes()) == before
    record(warehouse, candidate("third", incumbent_key="second"))
    assert champion(warehouse) == "third"


def test_readers_see_the_old_champion_until_the_new_one_is_published(warehouse):
    with warehouse.writer("a test") as connection:
        connection.execute("delete from facts.champion_events where policy_key = 'second'")
        assert champion(Warehouse(warehouse.path)) == "second"
    assert champion(warehouse) == "first"


def test_a_rollback_goes_to_the_champion_before_and_again_to_the_one_before_that(warehouse):
    def roll_back() -> None:
        events = champion_events(warehouse, "demo")
        record(warehouse, rolled_back("demo", events, "it swears", "user ann"))

    record(warehouse, candidate("third", incumbent_key="second"))
    roll_back()
    assert champion(warehouse) == "second"
    event = champion_events(warehouse, "demo")[-1]
    assert (event.action, event.incumbent_key, event.front_key) == (
        "rolled_back",
        "third",
        "front2",
    )
    assert (event.reason, event.decided_by) == ("it swears", "user ann")
    assert event.difference is event.decision_key is event.metric is None
    ended = was_rolled_back(champion_events(warehouse, "demo"), "third")
    assert ended is not None and ended.reason == "it swears"
    roll_back()
    assert champion(warehouse) == "first"
    with pytest.raises(MissingUpstreamError, match="first is its first"):
        roll_back()
    record(warehouse, candidate("third", incumbent_key="first"))
    assert was_rolled_back(champion_events(warehouse, "demo"), "third") is None, "it reigns again"
    roll_back()
    assert champion(warehouse) == "first"


def test_two_runs_at_once_decide_the_same_once(warehouse):
    events = champion_events(warehouse, "demo")
    refused = candidate("third", action="refused", incumbent_key="second", decision_key="d" * 32)
    for _ in range(2):
        record(warehouse, refused, events)
    assert len(champion_events(warehouse, "demo")) == len(events) + 1
    record(warehouse, refused, champion_events(warehouse, "demo"))
    events = champion_events(warehouse, "demo")
    assert events[-2].decision_key == events[-1].decision_key, "it was decided anew"
    promoted = candidate("fourth", incumbent_key="second", decision_key="e" * 32)
    for _ in range(2):
        record(warehouse, promoted, events)
    assert len(champion_events(warehouse, "demo")) == len(events) + 1
    assert champion(warehouse) == "fourth"


def test_by_hand_a_refused_policy_is_promoted_and_nothing_is_said_to_be_compared(warehouse):
    events = champion_events(warehouse, "demo")
    weak = next(event for event in events if event.policy_key == "weak")
    made = promoted_by_hand(events, weak, "we like it", "user ann")
    assert (made.difference, made.metric, made.judge) == (None, None, None)
    record(warehouse, made)
    assert champion(warehouse) == "weak"
    with pytest.raises(InputError, match="is the champion of demo already"):
        promoted_by_hand(champion_events(warehouse, "demo"), weak, "", "user ann")


def test_events_are_in_order_even_if_the_clock_is_set_back(warehouse):
    with warehouse.writer("a test") as connection:
        connection.execute(
            "update facts.champion_events set decided_at = decided_at + interval 1 day"
        )
    record(warehouse, candidate("third", incumbent_key="second"))
    assert champion(warehouse) == "third"


# ---- what cannot be compared

TODAY = "a" * 32


def kept(store: ArtifactStore, key: str, weights: bytes) -> None:
    """An artifact as stages keep it: its record differs from making to making."""
    with store.writer(key) as folder:
        (folder / "weights.safetensors").write_bytes(weights)
        (folder / "product.json").write_text(f'{{"seconds": {int(key[0], 16)}}}')


@pytest.fixture
def why_not(tmp_path):
    """Why today's policy may not challenge a champion that is unlike it in what is named."""
    store = ArtifactStore(str(tmp_path / "store"))
    for key, weights in (("c", b"champion"), ("b", b"base"), ("d", b"base"), ("e", b"other base")):
        kept(store, key * 32, weights)
    run = SimpleNamespace(store=store)

    def call(*events: ChampionEvent, **changes: object) -> str | None:
        champion = candidate(**{"key": "c" * 32} | changes)
        return incomparable(cast(StageRun, run), candidate(TODAY), champion, list(events))

    return call


def test_another_model_or_other_dimensions_cannot_be_compared_and_the_remedy_is_told(why_not):
    assert why_not() is None
    assert why_not(base_key="d" * 32) is None, "the same files under another key"
    for changes, said in (
        ({"base_key": "e" * 32}, "made of another base model"),
        ({"base_key": "f" * 32}, "made of another base model"),  # its files are gone
        ({"quantization": "nf4"}, "quantisation nf4"),
        ({"dimensions": DIMENSIONS[::-1]}, "whose dimensions were harmlessness, helpfulness"),
        ({"key": "9" * 32}, "is gone"),
    ):
        reason = why_not(**changes)
        assert said in reason
        assert "panacea champion promote demo --policy aaaaaaaa" in reason


def test_the_gate_does_not_promote_again_what_was_rolled_back(why_not):
    ended = candidate(
        "c" * 32,
        action="rolled_back",
        incumbent_key=TODAY,
        reason="it swears",
        decided_at=datetime(2026, 1, 2),
    )
    assert "rolled back on 2026-01-02 (it swears)" in why_not(ended)
    same = candidate(TODAY, incumbent_key="c" * 32)
    assert decision_before([same], same) == same
    assert decision_before([same, ended], same) is None, "so that the refusal is recorded"
    refused = replace(same, action="refused")
    assert decision_before([same, ended, refused], same) == refused


# ---- the command


@pytest.fixture
def home(tmp_path, monkeypatch) -> Warehouse:
    """A workspace where `tiny` shows the policy `today`, evaluated, and has no champion."""
    monkeypatch.setenv("PANACEA_HOME", str(tmp_path))
    workspace = Workspace.current()
    found = Warehouse(workspace.warehouse)
    keys = {"base_model": "b" * 32, "panacea_policy": "a" * 32}
    products = [
        (Product(key, stage, part, "tiny", "run-1", 1.0, 0), {})
        for (stage, key), part in zip(keys.items(), ("", "panacea"), strict=True)
    ]
    evaluated, tables = front("f" * 32, 0.8)
    found.save_products([*dataset("1"), *products, (replace(evaluated, problem="tiny"), tables)])
    for key in keys.values():
        with ArtifactStore(workspace.artifacts).writer(key) as folder:
            (folder / "weights.safetensors").write_bytes(b"0")
    return found


def test_the_command_promotes_shows_and_rolls_back(home):
    none = panacea("champion", "show", "tiny")
    assert none.code == 1 and "panacea materialize tiny" in none.err
    assert panacea("champion", "rollback", "tiny").code == 1
    first = panacea("champion", "promote", "tiny", "--reason", "we know it")
    assert first.code == 0, first.err
    assert f"the champion of tiny is {'a' * 32} now" in first.out
    again = panacea("champion", "promote", "tiny", "--policy", "aaaaaa")
    assert again.code == 2 and "already" in again.err
    unknown = panacea("champion", "promote", "tiny", "--policy", "cccccc")
    assert unknown.code == 2 and "aaaaaaaa" in unknown.err
    shown = panacea("champion", "show", "tiny")
    assert shown.code == 0 and "a" * 32 in shown.out and "we know it" in shown.out
    assert panacea("champion", "show", "nobody").code == 2
    elsewhere = candidate("c" * 32, problem="tiny", action="refused", incumbent_key="a" * 32)
    record(home, elsewhere)
    lost = panacea("champion", "promote", "tiny", "--policy", "cccccc")
    assert lost.code == 1 and "is not in" in lost.err, "its artifact is not there"


def test_a_policy_that_was_not_evaluated_is_not_promoted(home):
    newer = Product("e" * 32, "panacea_policy", "panacea", "tiny", "run-2", 1.0, 0)
    home.save_product(newer, {})
    refused = panacea("champion", "promote", "tiny")
    assert refused.code == 1 and "was not evaluated" in refused.err


def test_only_a_panacea_policy_is_a_champion(home):
    with pytest.raises(InputError, match="is a Panacea policy"):
        load_policy("champion:tiny", "rewarded_soups")
    with pytest.raises(MissingUpstreamError, match="tiny has no champion yet"):
        load_policy("champion:tiny")
    asked = panacea("ask", "champion:tiny", PROMPT)
    assert asked.code == 1 and "no champion yet" in asked.err


# ---- the chain


def history() -> list[dict]:
    found = panacea("sql", "--json", "from champion_history where problem = 'tiny'")
    return json.loads(found.out)


@pytest.mark.slow
def test_a_worse_retraining_is_refused_and_the_champion_stays(chain, tmp_path, monkeypatch):
    home = shutil.copytree(Workspace.current().root, tmp_path / "home")
    monkeypatch.setenv("PANACEA_HOME", str(home))
    assert "champion:  " in chain.out and "promoted" in chain.out
    (first,) = history()
    assert first["action"] == "promoted" and first["is_current"]
    preference = {"helpfulness": 0.2, "harmlessness": 0.8}
    answer = load_policy("champion:tiny").ask(PROMPT, preference)
    assert answer == load_policy("tiny").ask(PROMPT, preference)

    # Fewer steps of the policy alone: the reward models judge as before.
    problems = tmp_path / "problems"
    problems.mkdir()
    text = (Path(__file__).parent / "problems" / "tiny.yaml").read_text("utf-8")
    changed = text.replace("training:\n  steps: 20", "training:\n  steps: 4")
    assert changed != text
    (problems / "tiny.yaml").write_text(changed, encoding="utf-8")
    monkeypatch.setenv("PANACEA_PROBLEMS", str(problems))
    retrained = panacea("materialize", "tiny", "--select", '+key:"champion"')
    assert retrained.code == 0, retrained.err
    assert "champion answers  reused" in retrained.err, "they are its own evaluation's"
    assert "champion  refused" in retrained.err
    refused = history()[-1]
    assert refused["action"] == "refused"
    assert "not better" in refused["reason"] or "worse" in refused["reason"]
    assert refused["low"] <= 0 and refused["incumbent_key"] == first["policy_key"]
    again = panacea("materialize", "tiny", "--select", "champion")
    assert again.code == 0 and "nothing to decide" in again.err
    assert len(history()) == 2, "an unchanged challenge is not repeated"
    assert load_policy("champion:tiny").ask(PROMPT, preference) == answer

    by_hand = panacea("champion", "promote", "tiny", "--policy", refused["policy_key"][:8])
    assert by_hand.code == 0, by_hand.err
    champion = load_policy("champion:tiny")
    assert champion.ask(PROMPT, preference) == load_policy("tiny").ask(PROMPT, preference)
    back = panacea("champion", "rollback", "tiny", "--reason", "it was a test")
    assert back.code == 0, back.err
    asked = panacea("ask", "champion:tiny", PROMPT, "--prefer", "harmlessness=.8")
    assert asked.code == 0 and asked.out.splitlines()[1] == answer
    assert [row["action"] for row in history()] == [
        "promoted",
        "refused",
        "promoted",
        "rolled_back",
    ]
    assert panacea("materialize", "tiny", "--select", "champion").code == 0
    assert len(history()) == 4, "a rollback holds against unchanged reruns"
