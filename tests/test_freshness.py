"""The age that Dagster shows of what a weekly schedule makes, by the daemon's own evaluator."""

import asyncio
from datetime import timedelta

import dagster as dg
import pytest
from dagster._core.definitions import freshness_evaluator
from dagster._core.definitions.freshness import TimeWindowFreshnessPolicy
from dagster._core.definitions.freshness_evaluator import TimeWindowFreshnessPolicyEvaluator
from dagster._core.loader import LoadingContextForTest
from dagster._time import get_current_timestamp

from orchestration.definitions import defs
from orchestration.partitions import PROBLEMS

AGING = ("panacea_policy", "pareto_front", "champion")


@dg.asset(partitions_def=PROBLEMS)
def champion() -> None:
    """Stands in for the real one, whose event would be the same."""


def test_what_follows_from_a_training_has_a_policy_and_nothing_else():
    specs = defs.resolve_all_asset_specs()
    aging = {spec.key.to_user_string(): spec.freshness_policy for spec in specs}
    policies = {name: policy for name, policy in aging.items() if policy}
    assert set(policies) == set(AGING)
    assert all(isinstance(policy, TimeWindowFreshnessPolicy) for policy in policies.values())


@pytest.mark.parametrize(
    ("days", "state"),
    [(0, "PASS"), (7.5, "PASS"), (8.5, "WARN"), (14.5, "WARN"), (15.5, "FAIL")],
)
def test_it_warns_after_a_missed_week_and_fails_after_two(monkeypatch, days, state):
    instance = dg.DagsterInstance.ephemeral()
    node = defs.resolve_asset_graph().get(dg.AssetKey("champion"))
    seconds = get_current_timestamp() + timedelta(days=days).total_seconds()
    monkeypatch.setattr(freshness_evaluator, "get_current_timestamp", lambda: seconds)

    def evaluated() -> str:
        found = TimeWindowFreshnessPolicyEvaluator().evaluate_freshness(
            LoadingContextForTest(instance), node
        )
        return asyncio.run(found).value

    assert evaluated() == "UNKNOWN", "what was never made is not late"
    dg.materialize([champion], instance=instance, partition_key="tiny")
    assert evaluated() == state
