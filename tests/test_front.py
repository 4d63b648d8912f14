"""Values, rulers, intervals and the three tables of an evaluation, on small enumerable worlds."""

from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from panacea_lib import warehouse
from panacea_lib.evaluation import (
    FrontTables,
    PolicySamples,
    Ruler,
    best_of_n,
    estimated_ruler,
    evaluate_fronts,
    exact_ruler,
    preference_grid,
    prompt_means,
    reference_samples,
)
from panacea_lib.evaluation.ruler import jackknifed_log_mean_exp
from panacea_lib.world.exact import Enumeration

SCHEMA = Path(warehouse.__file__).with_name("schema.sql")
BETA = 0.5
DIMENSIONS = ["helpfulness", "harmlessness", "conciseness"]


def world(prompts: int, m: int = 2, answers: int = 40, seed: int = 0) -> Enumeration:
    """Random log probabilities and rewards in standard units, for a few answers per prompt."""
    rng = np.random.default_rng(seed)
    logprob = 1.5 * rng.normal(size=(prompts, answers))
    logprob -= np.logaddexp.reduce(logprob, axis=1, keepdims=True)
    return Enumeration(logprob, rng.normal(size=(prompts, answers, m)))


def tilted(enumeration: Enumeration, grid: np.ndarray, strength: float) -> np.ndarray:
    """log π ∝ log π_ref + strength · λ·r/β, shape (G, P, A): the optimum at strength 1."""
    logits = np.einsum("gm,pam->gpa", grid, enumeration.reward) * strength / BETA
    logits = logits + enumeration.logprob
    return logits - np.logaddexp.reduce(logits, axis=2, keepdims=True)


def draw(
    enumeration: Enumeration, grid: np.ndarray, strength: float, samples: int = 8, seed: int = 0
) -> PolicySamples:
    """Samples of the tilted policy at every point and prompt."""
    logprob = tilted(enumeration, grid, strength)
    noise = np.random.default_rng(seed).gumbel(size=(samples, *logprob.shape))
    answer = (logprob + noise).argmax(axis=3)
    _, point, prompt = np.indices(answer.shape)
    point, prompt, answer = point.ravel(), prompt.ravel(), answer.ravel()
    ratio = logprob[point, prompt, answer] - enumeration.logprob[prompt, answer]
    reward = enumeration.reward[prompt, answer]
    return PolicySamples(f"tilted_{strength}", point, prompt, reward, ratio)


def draw_reference(enumeration: Enumeration, samples: int, seed: int = 0) -> PolicySamples:
    vertex = preference_grid(enumeration.reward.shape[2])[:1]
    drawn = draw(enumeration, vertex, 0.0, samples, seed)
    return reference_samples(drawn.prompt, drawn.reward)


def rewards_of(samples: PolicySamples, prompts: int) -> np.ndarray:
    """(N, m) in the order of `draw` to (P, n, m)."""
    shaped = samples.reward.reshape(-1, prompts, samples.reward.shape[1])
    return shaped.transpose(1, 0, 2)


def evaluate(policies: list[PolicySamples], ruler: Ruler, m: int = 2, **more) -> FrontTables:
    more = {"bootstrap": 200, "seed": 0, **more}
    grid = preference_grid(m)
    points, prompts = ruler.optimal_value.shape
    means = [prompt_means(policy, points, prompts, m) for policy in policies]
    return evaluate_fronts(means, grid, DIMENSIONS[:m], BETA, ruler, "gold", **more)


def figure(tables: FrontTables, method: str, metric: str) -> dict:
    rows = tables.front_metrics.to_pylist()
    return next(row for row in rows if (row["method"], row["metric"]) == (method, metric))


@pytest.mark.parametrize("m", [2, 3])
def test_samples_of_the_optimum_have_ratio_one_and_no_variance(m):
    enumeration, grid = world(prompts=5, m=m), preference_grid(m)
    ruler = exact_ruler(enumeration, grid, BETA)
    optimum = draw(enumeration, grid, strength=1.0, samples=3)
    value = (grid[optimum.point] * optimum.reward).sum(axis=1) - BETA * optimum.log_ratio
    assert value == pytest.approx(ruler.optimal_value[optimum.point, optimum.prompt], abs=1e-9)
    ratio = figure(evaluate([optimum], ruler, m), optimum.method, "value_ratio")
    assert (ratio["value"], ratio["low"], ratio["high"]) == pytest.approx((1, 1, 1), abs=1e-9)


def test_the_reference_policy_has_ratio_zero():
    enumeration, grid = world(prompts=30), preference_grid(2)
    reference = draw_reference(enumeration, samples=16)
    exact = figure(
        evaluate([reference], exact_ruler(enumeration, grid, BETA)), "reference", "value_ratio"
    )
    assert exact["low"] < 0 < exact["high"]
    assert abs(exact["value"]) < 0.1
    # Measured with a ruler made of its own samples it is zero whatever they are.
    own = estimated_ruler(rewards_of(reference, prompts=30), grid, BETA)
    assert figure(evaluate([reference], own), "reference", "value_ratio")["value"] == pytest.approx(
        0, abs=1e-12
    )


def test_a_half_strength_policy_has_the_ratio_that_enumeration_gives():
    enumeration, grid = world(prompts=40), preference_grid(2)
    ratio = figure(
        evaluate([draw(enumeration, grid, 0.5, samples=64)], exact_ruler(enumeration, grid, BETA)),
        "tilted_0.5",
        "value_ratio",
    )
    assert ratio["value"] == pytest.approx(true_ratio(enumeration, 0.5), abs=0.02)


def true_ratio(enumeration: Enumeration, strength: float) -> float:
    """The value ratio of the tilted policy, by enumeration."""
    grid = preference_grid(enumeration.reward.shape[2])
    ruler = exact_ruler(enumeration, grid, BETA)
    logprob = tilted(enumeration, grid, strength)
    gain = np.einsum("gm,pam->gpa", grid, enumeration.reward)
    gain = gain - BETA * (logprob - enumeration.logprob)
    value = (np.exp(logprob) * gain).sum(axis=2)
    attainable = (ruler.optimal_value - ruler.reference_value).sum()
    return float((value - ruler.reference_value).sum() / attainable)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.floats(-50, 50), min_size=2, max_size=2))
def test_a_shift_of_the_rewards_leaves_the_ratio_and_the_volumes_unmoved(shift):
    plain = world(prompts=6)
    moved = Enumeration(plain.logprob, plain.reward + shift)
    grid, found = preference_grid(2), []
    for enumeration in (plain, moved):
        policy = draw(plain, grid, 0.7)
        rewards = policy.reward + (0 if enumeration is plain else np.array(shift))
        policy = PolicySamples("p", policy.point, policy.prompt, rewards, policy.log_ratio)
        tables = evaluate([policy], exact_ruler(enumeration, grid, BETA), bootstrap=10)
        names = ("value_ratio", "hypervolume", "charged_hypervolume", "sparsity", "kl")
        found.append([figure(tables, "p", name)["value"] for name in names])
    assert found[1] == pytest.approx(found[0], rel=1e-6)


def test_the_order_of_samples_and_of_policies_changes_nothing():
    enumeration, grid = world(prompts=6), preference_grid(2)
    ruler = exact_ruler(enumeration, grid, BETA)
    first, second = draw(enumeration, grid, 0.5), draw(enumeration, grid, 0.9)
    order = np.random.default_rng(3).permutation(len(first.point))
    shuffled = PolicySamples(
        first.method,
        *(part[order] for part in (first.point, first.prompt, first.reward, first.log_ratio)),
    )
    together = evaluate([first, second], ruler)
    swapped = evaluate([second, shuffled], ruler)
    for name in ("value_ratio", "hypervolume", "spacing"):
        for method in (first.method, second.method):
            # The intervals too: all policies see the same resamples.
            a, b = figure(together, method, name), figure(swapped, method, name)
            assert [a[k] for k in ("value", "low", "high")] == pytest.approx(
                [b[k] for k in ("value", "low", "high")]
            )


def test_the_estimated_ruler_is_biased_low_and_approaches_the_exact_one():
    prompts, grid = 40, preference_grid(2)
    enumeration = world(prompts, answers=200)
    exact = exact_ruler(enumeration, grid, BETA)
    biases = []
    for samples in (4, 16, 256):
        rounds = [draw_reference(enumeration, samples, seed) for seed in range(8)]
        estimates = [
            estimated_ruler(rewards_of(r, prompts), grid, BETA).optimal_value.mean() for r in rounds
        ]
        biases.append(np.mean(estimates) - exact.optimal_value.mean())
    assert biases[0] < biases[1] < 0
    assert abs(biases[2]) < 0.1 * abs(biases[0])
    # So the same policy's ratio reads high.
    policy = draw(enumeration, grid, 1.0)
    few = estimated_ruler(rewards_of(draw_reference(enumeration, 8), prompts), grid, BETA)
    assert not few.exact
    assert figure(evaluate([policy], few), policy.method, "value_ratio")["value"] > 1


def test_the_estimated_front_approaches_the_exact_one():
    prompts, grid = 30, preference_grid(2)
    enumeration = world(prompts)
    exact = exact_ruler(enumeration, grid, BETA)
    errors = []
    for samples in (16, 4096):
        drawn = rewards_of(draw_reference(enumeration, samples), prompts)
        estimated = estimated_ruler(drawn, grid, BETA)
        difference = estimated.optimal_reward.mean(axis=1) - exact.optimal_reward.mean(axis=1)
        errors.append(np.abs(difference).mean())
        # λ·E[r] − β·KL = V* however few the samples are.
        value = (grid[:, None] * estimated.optimal_reward).sum(axis=2) - BETA * estimated.optimal_kl
        assert value == pytest.approx(estimated.optimal_value)
    assert errors[1] < 0.02 < errors[0]


def test_effective_samples_by_hand():
    # At λ = (1, 0) the weights are 1, 1 and e⁻ʷ → 0: two of three. At (0, 1) all weigh alike.
    reward = np.array([[[0.0, 0.0], [0.0, 0.0], [-100.0, 0.0]]])
    ruler = estimated_ruler(reward, np.eye(2), BETA)
    assert ruler.effective == pytest.approx([2, 3])
    assert ruler.known.tolist() == [False, False]
    assert ruler.samples_needed == 8  # 3 · 5 / 2
    assert exact_ruler(world(2), np.eye(2), BETA).samples_needed == 0


def test_points_of_too_few_effective_samples_are_refused():
    prompts, grid = 12, preference_grid(2)
    enumeration = world(prompts)
    stretched = Enumeration(enumeration.logprob, enumeration.reward * np.array([4.0, 1.0]))
    reference = draw_reference(stretched, 24)
    ruler = estimated_ruler(rewards_of(reference, prompts), grid, BETA)
    assert ruler.known[0] and not ruler.known[-1], "the first dimension's weights leave few"
    tables = evaluate([reference], ruler)
    shown = {r["point"] for r in tables.front_rewards.to_pylist() if r["method"] == "optimum"}
    assert shown == set(np.flatnonzero(ruler.known).tolist())
    assert figure(tables, "optimum", "points_refused")["value"] == 11 - len(shown)
    assert figure(tables, "optimum", "samples_needed")["value"] == ruler.samples_needed > 24
    assert figure(tables, "optimum", "effective_samples")["value"] < 5
    metrics = tables.front_metrics.to_pylist()
    assert {r["metric"] for r in metrics if r["method"] == "optimum"} == {
        "points_refused",
        "samples_needed",
        "effective_samples",
    }
    assert not any(r["metric"] == "igd_plus" for r in metrics), "no distance to what is not known"


def test_the_optimum_stands_in_the_tables_as_the_best_there_is():
    enumeration, grid = world(prompts=12), preference_grid(2)
    ruler = exact_ruler(enumeration, grid, BETA)
    policy = draw(enumeration, grid, 0.6, samples=16)
    tables = evaluate([policy], ruler)
    best = {
        name: figure(tables, "optimum", name)["value"]
        for name in ("value_ratio", "igd_plus", "max_utility_loss", "charged_regret")
    }
    assert best == pytest.approx(
        {"value_ratio": 1, "igd_plus": 0, "max_utility_loss": 0, "charged_regret": 0}, abs=1e-9
    )
    for name in ("expected_utility", "charged_hypervolume"):
        own, top = (figure(tables, method, name) for method in (policy.method, "optimum"))
        assert own["value"] < top["value"] and (top["low"], top["high"]) == (top["value"],) * 2
    for name in ("igd_plus", "max_utility_loss"):
        row = figure(tables, policy.method, name)
        assert 0 < row["low"] <= row["value"] <= row["high"]


def test_utilities_of_a_policy_that_ignores_the_preference():
    enumeration, grid = world(prompts=12), preference_grid(2)
    ruler, reference = exact_ruler(enumeration, grid, BETA), draw_reference(enumeration, 512)
    tables = evaluate([reference], ruler)
    mean = reference.reward.mean(axis=0)
    value = {n: figure(tables, "reference", n)["value"] for n in ("expected_utility", "igd_plus")}
    assert value["expected_utility"] == pytest.approx((grid @ mean).mean())
    assert figure(tables, "reference", "charged_regret")["value"] == 0
    assert figure(tables, "reference", "steerability")["value"] == 0
    lost = ruler.optimal_value.mean(axis=1) - grid @ mean
    assert figure(tables, "reference", "max_utility_loss")["value"] == pytest.approx(lost.max())


def comparison(tables: FrontTables, method: str, other: str, metric: str) -> dict:
    rows = tables.front_comparisons.to_pylist()
    wanted = (method, other, metric)
    return next(row for row in rows if (row["method"], row["other"], row["metric"]) == wanted)


@pytest.mark.parametrize("metric", ["value_ratio", "charged_hypervolume", "expected_utility"])
def test_comparisons_are_paired_and_run_both_ways(metric):
    enumeration, grid = world(prompts=40), preference_grid(2)
    ruler = exact_ruler(enumeration, grid, BETA)
    weak, strong = (draw(enumeration, grid, strength, 16) for strength in (0.6, 0.7))
    tables = evaluate([weak, strong], ruler)
    ahead = comparison(tables, strong.method, weak.method, metric)
    behind = comparison(tables, weak.method, strong.method, metric)
    own = [figure(tables, policy.method, metric) for policy in (strong, weak)]
    assert ahead["difference"] == pytest.approx(own[0]["value"] - own[1]["value"])
    assert (behind["difference"], behind["low"]) == pytest.approx(
        (-ahead["difference"], -ahead["high"])
    )
    assert ahead["low"] > 0, "so small a lead shows under the same prompts"
    if metric == "charged_hypervolume":  # which the prompts blur most
        assert own[0]["low"] < own[1]["high"], "while the single intervals overlap"


def test_the_same_answers_under_two_names_show_no_difference():
    enumeration, grid = world(prompts=10), preference_grid(2)
    one = draw(enumeration, grid, 0.6)
    tables = evaluate([one, _broken(one, method="twin")], exact_ruler(enumeration, grid, BETA))
    row = comparison(tables, one.method, "twin", "value_ratio")
    assert (row["difference"], row["low"], row["high"]) == (0, 0, 0)


def test_the_best_of_n_is_measured_like_any_policy():
    prompts, grid = 20, preference_grid(2)
    enumeration = world(prompts)
    drawn = rewards_of(draw_reference(enumeration, 64), prompts)
    ruler = exact_ruler(enumeration, grid, BETA)
    tables = evaluate_fronts(
        [best_of_n(drawn, drawn, grid)], grid, DIMENSIONS[:2], BETA, ruler, "gold", 50
    )
    assert 0 < figure(tables, "best_of_16", "value_ratio")["value"] < 1
    assert figure(tables, "best_of_16", "kl")["value"] == pytest.approx(np.log(16) - 15 / 16)


def test_jackknife_by_hand_and_where_one_sample_outweighs_all():
    values = np.array([0.3, -1.0, 2.0])

    def log_mean_exp(v: np.ndarray) -> float:
        return float(np.log(np.exp(v).mean()))

    left_out = [log_mean_exp(np.delete(values, i)) for i in range(3)]
    expected = 3 * log_mean_exp(values) - 2 * np.mean(left_out)
    assert jackknifed_log_mean_exp(values[None])[0] == pytest.approx(expected)
    lonely = np.array([[0.0, 900.0, 1.0]])  # θ = 900 − log 3; without it, about log(1 + e) − log 2
    rest = np.log1p(np.e) - np.log(2)
    expected = 3 * (900 - np.log(3)) - 2 / 3 * (2 * (900 - np.log(2)) + rest)
    assert jackknifed_log_mean_exp(lonely)[0] == pytest.approx(expected)
    assert jackknifed_log_mean_exp(np.full((1, 2), 7.0))[0] == pytest.approx(7)


def test_bootstrap_intervals_cover_the_value_over_all_prompts():
    everything = world(prompts=1500, answers=20)
    truth = true_ratio(everything, 0.4)
    rng, grid, covered = np.random.default_rng(1), preference_grid(2), 0
    for seed in range(40):
        chosen = rng.choice(1500, size=40, replace=False)
        part = Enumeration(everything.logprob[chosen], everything.reward[chosen])
        policy = draw(part, grid, 0.4, samples=4, seed=seed)
        tables = evaluate([policy], exact_ruler(part, grid, BETA))
        ratio = figure(tables, policy.method, "value_ratio")
        assert ratio["low"] < ratio["value"] < ratio["high"]
        covered += ratio["low"] <= truth <= ratio["high"]
    assert covered >= 34  # of 40; 38 would be 95 %, percentiles over 40 prompts give less


def test_the_tables_have_the_columns_of_the_warehouse_and_every_row():
    enumeration, grid = world(prompts=5, m=3), preference_grid(3)
    policy, reference = draw(enumeration, grid, 1.0, samples=2), draw_reference(enumeration, 4)
    tables = evaluate([policy, reference], exact_ruler(enumeration, grid, BETA), m=3)
    with duckdb.connect() as connection:
        connection.execute(SCHEMA.read_text("utf-8"))
        for name in ("front_rewards", "front_values", "front_metrics", "front_comparisons"):
            rows = getattr(tables, name)
            expected = connection.sql(f"from facts.{name}").columns
            assert ["key", *rows.column_names] == expected
            connection.register("rows", rows)
            connection.execute(f"insert into facts.{name} by name select 'k' as key, * from rows")
            connection.unregister("rows")
    methods = {"optimum", policy.method, "reference"}
    assert set(tables.front_rewards["method"].to_pylist()) == methods
    assert tables.front_rewards.num_rows == 3 * 21 * 3
    assert tables.front_values.num_rows == 3 * 21
    assert set(tables.front_metrics["method"].to_pylist()) == methods
    samples = {row["method"]: row["n"] for row in tables.front_values.to_pylist()}
    assert samples == {"optimum": 0, policy.method: 10, "reference": 20}
    assert figure(tables, policy.method, "value_ratio")["n"] == 10 * 21


def test_a_policy_that_ignores_the_preference_has_a_front_of_one_point():
    enumeration = world(prompts=5)
    ruler = exact_ruler(enumeration, preference_grid(2), BETA)
    tables = evaluate([draw_reference(enumeration, 8)], ruler)
    assert figure(tables, "reference", "on_front")["value"] == 1
    for name in ("sparsity", "spacing"):
        row = figure(tables, "reference", name)
        assert [row[k] for k in ("value", "low", "high")] == [None] * 3
    assert figure(tables, "reference", "kl")["value"] == 0
    mean = draw_reference(enumeration, 8).reward.mean(axis=0)
    corner = ruler.reference_reward - 3
    for name in ("hypervolume", "charged_hypervolume"):
        assert figure(tables, "reference", name)["value"] == pytest.approx((mean - corner).prod())
    for dimension, coordinate in zip(DIMENSIONS, corner, strict=False):
        row = figure(tables, "reference", f"hypervolume_reference_{dimension}")
        assert row["value"] == pytest.approx(coordinate)


def test_drift_pays_in_raw_hypervolume_only():
    enumeration, grid = world(prompts=20), preference_grid(2)
    policies = [draw(enumeration, grid, strength, samples=16) for strength in (1.0, 3.0)]
    tables = evaluate(policies, exact_ruler(enumeration, grid, BETA))
    for name, drifted_wins in (("hypervolume", True), ("charged_hypervolume", False)):
        optimal, drifted = (figure(tables, p.method, name)["value"] for p in policies)
        assert (drifted > optimal) == drifted_wins
    assert figure(tables, "tilted_3.0", "value_ratio")["value"] < 0.9


def test_answers_outside_the_grammar_are_reported():
    enumeration, grid = world(prompts=5), preference_grid(2)
    plain = draw(enumeration, grid, 1.0, samples=4)
    outside = np.arange(len(plain.point)) % 4 == 0
    policy = PolicySamples("p", plain.point, plain.prompt, plain.reward, plain.log_ratio, outside)
    ruler = exact_ruler(enumeration, grid, BETA)
    assert figure(evaluate([policy], ruler), "p", "outside_mass")["value"] == pytest.approx(0.25)
    names = evaluate([plain], ruler).front_metrics["metric"].to_pylist()
    assert "outside_mass" not in names


def test_nothing_to_gain_gives_no_ratio():
    flat = Enumeration(world(4).logprob, np.ones((4, 40, 2)))
    policy = draw(flat, preference_grid(2), 1.0)
    ratio = figure(
        evaluate([policy], exact_ruler(flat, preference_grid(2), BETA)),
        policy.method,
        "value_ratio",
    )
    assert (ratio["value"], ratio["low"], ratio["high"]) == (None, None, None)


def _broken(policy: PolicySamples, **changes) -> PolicySamples:
    return PolicySamples(**{**vars(policy), **changes})


def test_bad_samples_are_refused_by_name():
    enumeration, grid = world(prompts=4), preference_grid(2)
    ruler, policy = exact_ruler(enumeration, grid, BETA), draw(enumeration, grid, 1.0, samples=2)
    nan = policy.reward.copy()
    nan[7, 1] = np.nan
    first = policy.point[(policy.point != 3) | (policy.prompt != 2)]
    cases = [
        (_broken(policy, reward=nan), "reward of sample 7"),
        (_broken(policy, log_ratio=policy.log_ratio * np.inf), "log_ratio of sample"),
        (_broken(policy, prompt=policy.prompt + 1), "prompts are 0 to 3"),
        (_broken(policy, point=policy.point - 1), "points are 0 to 10"),
        (_broken(policy, point=first), "are needed"),
        (_broken(policy, point=np.where(policy.point == 3, 4, policy.point)), "at point 3"),
        (_broken(policy, method="optimum"), "none may be called"),
    ]
    for bad, message in cases:
        with pytest.raises(ValueError, match=message):
            evaluate([bad], ruler)
    fewer = draw(world(prompts=3), grid, 1.0, samples=2)
    means = prompt_means(fewer, len(grid), 3, 2)
    with pytest.raises(ValueError, match="4 prompts of 2 dimensions: they are not comparable"):
        evaluate_fronts([means], grid, DIMENSIONS[:2], BETA, ruler, "gold")
    twice = np.vstack([grid[:-1], grid[:1]])
    with pytest.raises(ValueError, match="a preference vector stands twice"):
        evaluate_fronts([means], twice, DIMENSIONS[:2], BETA, ruler, "gold")
    with pytest.raises(ValueError, match="methods must differ"):
        evaluate([policy, policy], ruler)
    with pytest.raises(ValueError, match="no policy"):
        evaluate([], ruler)
    with pytest.raises(ValueError, match="2 or more samples"):
        estimated_ruler(np.zeros((4, 1, 2)), grid, BETA)


def test_the_same_seed_gives_the_same_tables():
    enumeration, grid = world(prompts=4), preference_grid(2)
    ruler, policy = exact_ruler(enumeration, grid, BETA), draw(enumeration, grid, 0.5)
    once, again, other = (evaluate([policy], ruler, seed=seed) for seed in (5, 5, 6))
    assert once.front_metrics.equals(again.front_metrics)
    assert not once.front_metrics.equals(other.front_metrics)
    assert isinstance(once.front_rewards, pa.Table)
