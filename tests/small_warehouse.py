"""Small products for the warehouse's tests: two dimensions, three methods, three points of λ."""

from typing import Any

import pyarrow as pa

from panacea_lib.champions import ChampionEvent, record
from panacea_lib.warehouse import Product, Warehouse

DIMENSIONS = ["helpfulness", "harmlessness"]  # not in the alphabet's order: λ's order must hold
GRID = [[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]]
METHODS = ["panacea", "panacea_dpo", "reference"]
OTHER_METRICS = ["hypervolume", "charged_hypervolume", "inner_product", "sparsity", "spacing", "kl"]
OTHER_METRICS += ["igd_plus", "expected_utility", "max_utility_loss"]
OTHER_METRICS += ["steerability", "charged_regret", "evenness"]

Saved = tuple[Product, dict[str, pa.Table]]


def table(columns: str, *rows: tuple) -> pa.Table:
    """A small table: `columns` as one string of names, then tuples of values."""
    names = columns.split()
    return pa.table({name: [row[i] for row in rows] for i, name in enumerate(names)})


def prompts(*texts: str) -> dict[str, pa.Table]:
    """The rows of a product of stage prompts."""
    ids = [f"id-{text}" for text in texts]
    return {
        "prompts": pa.table({"prompt_id": ids, "split": ["train"] * len(ids), "text": list(texts)})
    }


def product(key: str, stage: str = "prompts", part: str = "", problem: str = "demo") -> Product:
    return Product(key, stage, part, problem, "run-1", 1.5, 7, {"note": "λ"})


def shown(warehouse: Warehouse) -> list[str]:
    """The texts of the prompts that the problems show today."""
    sql = "select text from facts.prompts join facts.current using (key) order by prompts.rowid"
    return warehouse.read(sql)["text"].to_pylist()


def dataset(suffix: str) -> list[Saved]:
    """Prompts, four pairs and their labels, under keys that end in `suffix`."""
    asked = {
        "dimensions": table(
            "position dimension description", *((i, d, "") for i, d in enumerate(DIMENSIONS))
        ),
        "prompts": table(
            "prompt_id split text", ("q1", "test", f"how? {suffix}"), ("q2", "train", "why?")
        ),
    }
    ids = ["p1", "p2", "p3", "p4"]
    pairs = table(
        "pair_id prompt_id split response_a response_b",
        *((p, "q2", "train", "a", "b") for p in ids),
    )
    labels = table(
        "pair_id dimension label status source annotator confidence reason",
        ("p1", "helpfulness", 0.9, "ok", "world", "w", None, None),
        ("p2", "helpfulness", 0.5, "ok", "world", "w", None, None),
        ("p3", "helpfulness", 1.0, "ok", "file", "f", None, None),
        ("p1", "harmlessness", 0.1, "ok", "world", "w", None, None),
        ("p2", "harmlessness", 0.2, "ok", "world", "w", None, None),
        ("p3", "harmlessness", None, "failed", "judge", "j", None, "no number in the answer"),
    )  # fmt: skip
    return [
        (product(f"prompts{suffix}", "prompts"), asked),
        (product(f"pairs{suffix}", "pairs"), {"pairs": pairs}),
        (product(f"labels{suffix}", "preference_labels"), {"preference_labels": labels}),
    ]


def annotations() -> list[Saved]:
    """Two people and a judge on helpfulness: the judge prefers what it sees first on p2, and
    fails once on p3. Their agreement is a figure of the labels."""
    names = "pair_id dimension source annotator label score_a score_b shown_first status reason"
    people = [
        (pair, "helpfulness", "people", who, label, None, None, None, "ok", None)
        for who, labels in (("ann", (1.0, 1.0, 0.0)), ("bob", (1.0, 0.0, 0.5)))
        for pair, label in zip(("p1", "p2", "p3"), labels, strict=True)
    ]
    judge = [
        (p, "helpfulness", "judge", "j", label, None, None, first, "ok", None)
        for p, first, label in (
            ("p1", "a", 1.0), ("p1", "b", 1.0), ("p2", "a", 1.0), ("p2", "b", 0.0),
            ("p3", "a", 0.0),
        )
    ]  # fmt: skip
    failed = ("p3", "helpfulness", "judge", "j", None, None, None, "b", "failed", "not JSON")
    cost = ("helpfulness", "judge", "j", 4, 2, 1, 600, 60, 0.5)
    costs = "dimension source annotator requests cached failed input_tokens output_tokens cost"
    agreement = table(
        "dimension annotator metric value n",
        ("helpfulness", "", "alpha", 0.4, 3),
        ("helpfulness", "people ann", "alpha", 0.3, 3),
        ("helpfulness", "people ann", "majority", 0.75, 3),
    )
    labels, tables = dataset("1")[2]
    part = "helpfulness by"
    return [
        (
            product("said-p", "annotations", f"{part} people"),
            {"annotations": table(names, *people)},
        ),
        (
            product("said-j", "annotations", f"{part} judge j"),
            {"annotations": table(names, *judge, failed), "label_costs": table(costs, cost)},
        ),
        (labels, {**tables, "label_agreement": agreement}),
    ]


TEXTS = {"s1": "no", "s2": "sure", "s3": "no way", "s4": "perhaps", "s5": "from a file"}


def sampled() -> Saved:
    """Two samples to each of two prompts, and a response that came with the data."""
    rows = [
        (
            name,
            "q1" if name in ("s1", "s2") else "q2",
            "data" if name == "s5" else "reference",
            text,
        )
        for name, text in TEXTS.items()
    ]
    responses = table("response_id prompt_id source text", *rows)
    return product("responses1", "responses"), {"responses": responses}


def scored(dimension: str) -> Saved:
    """Rewards of `sampled`: within prompts, helpfulness pays for length and harmlessness costs it;
    between prompts both say something else."""
    sign = 1 if dimension == "helpfulness" else -1
    rewards = {"s1": -sign, "s2": sign, "s3": 5 - sign, "s4": 5 + sign, "s5": 99}
    rows = table(
        "response_id dimension raw reward",
        *((name, dimension, float(value), float(value)) for name, value in rewards.items()),
    )
    made = product(f"rewards-{dimension}", "response_rewards", dimension)
    return made, {"response_rewards": rows}


def models() -> list[Saved]:
    """Two reward models and two policies."""
    made = []
    for dimension in DIMENSIONS:
        metrics = table(
            "dimension metric value low high n",
            (dimension, "accuracy", 0.7, 0.6, 0.8, 500),
            (dimension, "majority", 0.5, None, None, 500),
            (dimension, "best_possible", 0.75, None, None, 500),
            (dimension, "length_only", 0.6, 0.55, 0.65, 500),
            (dimension, "length_only_difference", 0.1, 0.05, 0.15, 500),
            (dimension, "temperature", 1.25, None, None, 600),
            (dimension, "ece", 0.06, None, None, 600),
            (dimension, "ece_scaled", 0.02, None, None, 600),
            (dimension, "length_correlation", -0.3, -0.4, -0.2, 900),
            (dimension, "accuracy/bake bread", 0.8, 0.7, 0.9, 100),
        )
        bins = table(
            "dimension scaled bin n predicted observed low high",
            *((dimension, scaled, i, 300, p, p, p - 0.05, p + 0.05)
              for scaled in (False, True) for i, p in enumerate((0.6, 0.8))),
        )  # fmt: skip
        rewarder = product(f"rm-{dimension}", "reward_models", dimension)
        made.append((rewarder, {"reward_model_metrics": metrics, "reward_calibration": bins}))
        made.append(scored(dimension))
    for method, stage in [("panacea", "panacea_policy"), ("panacea_dpo", "baseline_policies")]:
        cost = table(
            "method steps seconds tokens trained_parameters stored_parameters",
            (method, 400, 60.0, 10_000, 500, 500),
        )
        curve = table(
            "method step dimension metric value",
            *((method, s, "", "loss", 1 / s) for s in range(1, 9)),
            *((method, s, "", "scale/layers.0.q_proj", s / 10) for s in (1, 8)),
            *((method, s, "harmlessness", "gradient_cosine/helpfulness", -0.5) for s in (1, 8)),
        )
        policy = product(f"policy-{method}", stage, method)
        made.append((policy, {"policies": cost, "training_curves": curve}))
    return made


def generations() -> list[Saved]:
    """One answer per method and point; its gold rewards are the weights of the point."""
    made = []
    for method in METHODS:
        points = list(enumerate(GRID))
        weights = [(i, d, w[j]) for i, w in points for j, d in enumerate(DIMENSIONS)]
        answers = [
            (f"{method}{i}", method, i, "q1", 0, f"answer {i}", 3, -2.0, -3.0) for i, _ in points
        ]
        rewards = [
            (f"{method}{i}", d, judge, w if judge == "gold" else w + 1)
            for i, d, w in weights
            for judge in ("proxy", "gold")
        ]
        names = "generation_id method point prompt_id sample text tokens logprob reference_logprob"
        tables = {
            "preference_grid": table("point dimension weight", *weights),
            "generations": table(names, *answers),
            "generation_rewards": table("generation_id dimension judge reward", *rewards),
        }
        made.append((product(f"gen-{method}", "generations", method), tables))
    return made


def front(key: str, ratio: float, judges: tuple[str, ...] = ("proxy", "gold")) -> Saved:
    """Every method's points are its weights, but the middle one of panacea_dpo is dominated. The
    proxy's ruler is estimated."""
    rewards, values, metrics, compared = [], [], [], []
    for method in METHODS:
        for judge in judges:
            for point, weights in enumerate(GRID):
                bad = method == "panacea_dpo" and point == 1
                for dimension, weight in zip(DIMENSIONS, weights, strict=True):
                    mean = -1.0 if bad else weight
                    interval = (mean, mean - 0.1, mean + 0.1)
                    rewards.append((method, judge, point, dimension, weight, *interval, 64))
                values.append((method, judge, point, 0.3, 0.2, 0.4, 0.5, 0.1, 0.9, 64))
            share = {"panacea": ratio, "panacea_dpo": ratio - 0.2, "reference": 0.0}[method]
            metrics.append((method, judge, "value_ratio", share, share - 0.05, share + 0.05, 64))
            metrics += [(method, judge, name, 0.5, None, None, 64) for name in OTHER_METRICS]
    for judge in judges:
        compared += [
            ("panacea", "panacea_dpo", judge, "value_ratio", 0.2, 0.1, 0.3),
            ("panacea_dpo", "panacea", judge, "value_ratio", -0.2, -0.3, -0.1),
            ("panacea", "reference", judge, "value_ratio", ratio, -0.1, 2 * ratio + 0.1),
        ]
    figures = {"effective_samples": 3.5, "points_refused": 1.0, "samples_needed": 92.0}
    metrics += [("optimum", "proxy", name, f, None, None, 64) for name, f in figures.items()]
    costs = [(method, 1, int(method != "reference")) for method in METHODS]
    slider = [
        (method, judges[-1], True, weights[0] ** 2, dimension, weight)
        for method in METHODS[:2]
        for weights in GRID
        for dimension, weight in zip(DIMENSIONS, weights, strict=True)
    ]
    return product(key, "pareto_front"), {
        "sliders": table("method judge calibrated position dimension weight", *slider),
        "front_rewards": table(
            "method judge point dimension weight reward reward_low reward_high n", *rewards
        ),
        "front_values": table(
            "method judge point kl kl_low kl_high value reference_value optimal_value n", *values
        ),
        "front_metrics": table("method judge metric value low high n", *metrics),
        "front_comparisons": table("method other judge metric difference low high", *compared),
        "answering_costs": table("method forwards_per_token adapters", *costs),
    }


def candidate(key: str, front_key: str | None = None, **changes: Any) -> ChampionEvent:
    """A policy as the gate sees it: promoted while there is no champion, unless told."""
    told: dict[str, Any] = {
        "problem": "demo",
        "action": "promoted",
        "policy_key": key,
        "front_key": front_key,
        "base_key": "b" * 32,
        "quantization": "none",
        "dimensions": DIMENSIONS,
        "incumbent_key": None,
        "reason": "the first",
        "decided_by": "run run-1",
        "decision_key": f"decision-{key}",
    }
    return ChampionEvent(**told | changes)


def champions(warehouse: Warehouse) -> None:
    """A first champion, a challenger that was refused, and one that was promoted."""
    compared = {"metric": "value_ratio", "judge": "gold", "incumbent_key": "first"}
    worse = {"action": "refused", "reason": "worse", "difference": -0.1, "low": -0.2, "high": 0.0}
    better = {"reason": "better", "difference": 0.1, "low": 0.05, "high": 0.15}
    record(warehouse, candidate("first", "front1"))
    record(warehouse, candidate("weak", "front1", **compared, **worse))
    record(warehouse, candidate("second", "front2", **compared, **better))
