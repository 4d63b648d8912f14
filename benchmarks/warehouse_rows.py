"""A large synthetic warehouse of the problem `demo`: every stage's rows, under its real keys.

Numbers and texts are random; ids, keys, sizes of cells and the way rows refer to each other are
those of the pipeline, so that every view answers and the report finds all it shows.
"""

from dataclasses import dataclass
from itertools import permutations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from panacea_lib.evaluation import EVERY_POINT, preference_grid
from panacea_lib.plan import Plan
from panacea_lib.plan_content import policy_stage
from panacea_lib.problem import Problem
from panacea_lib.problem_files import find_problems, load_problem
from panacea_lib.warehouse import Product
from panacea_lib.workspace import Workspace

PROBLEM = "demo"
SAMPLES = 8  # answers to a prompt at one λ, as the demo has
PHRASES = 400
PHRASES_PER_TEXT = 5  # about 80 characters
STEPS = 400
JUDGES = ("gold", "proxy")
FIGURES = ("value_ratio", "hypervolume", "charged_hypervolume", "inner_product", "sparsity")
MORE_FIGURES = ("spacing", "kl", "outside_mass", "igd_plus", "expected_utility")
MORE_FIGURES += ("max_utility_loss", "steerability", "charged_regret", "evenness")
OF_THE_RULER = ("effective_samples", "points_refused", "samples_needed")

Saved = tuple[Product, dict[str, pa.Table]]


@dataclass(frozen=True)
class Sizes:
    """How many rows a synthetic warehouse has; prompts and responses grow with them."""

    labels: int
    generations: int

    @property
    def pairs(self) -> int:
        """Every pair is labelled on both dimensions."""
        return self.labels // 2

    @property
    def responses(self) -> int:
        """A response is in a few pairs."""
        return max(self.pairs // 5, 16)


class Synthetic:
    """The rows of one problem, drawn from one generator."""

    def __init__(self, workspace: Workspace, sizes: Sizes) -> None:
        self.sizes = sizes
        self.problem, self.plan = planned(workspace)
        self.names = self.problem.dimension_names
        self.grid = preference_grid(len(self.names))
        self._rng = np.random.default_rng(0)
        words = ["".join(chr(97 + c) for c in self._rng.integers(0, 26, 5)) for _ in range(3000)]
        picked = self._rng.integers(0, len(words), (PHRASES, 3))
        self._phrases = pa.array([" ".join(words[i] for i in row) for row in picked])
        per_prompt = SAMPLES * len(self.grid) * len(self.plan.methods)
        self.held_out = -(-sizes.generations // per_prompt)
        self.prompt_ids = self.ids(max(10 * self.held_out, 100))

    def products(self) -> list[Saved]:
        """Everything that the pipeline would have saved, in its order."""
        dataset = [self.prompts(), self.responses(), self.pairs(), self.labels()]
        models = [product for name in self.names for product in self._reward_model(name)]
        policies = [self._policy(method) for method in self.plan.methods if method != "reference"]
        return [*dataset, *models, *policies, *self.generations(), self._front()]

    # ---- cells

    def ids(self, count: int) -> pa.Array:
        """Random ids of 16 hexadecimal digits, as `content_id` makes them."""
        digits = np.frombuffer(self._rng.bytes(8 * count).hex().encode(), "S16")
        return pa.array(digits.astype("U16"))

    def texts(self, count: int) -> pa.Array:
        """Random texts of about 80 characters, nearly all different."""
        parts = [self._pick(self._phrases, count) for _ in range(PHRASES_PER_TEXT)]
        return pc.call_function("binary_join_element_wise", [*parts, pa.scalar(" , ")])

    def numbers(self, count: int) -> np.ndarray:
        """Random doubles."""
        return self._rng.normal(size=count)

    def _pick(self, values: pa.Array, count: int) -> pa.Array:
        return values.take(self._rng.integers(0, len(values), count))

    def _product(self, stage: str, part: str = "") -> Product:
        return Product(self.plan.key(stage, part), stage, part, PROBLEM, "benchmark", 1.0, 0)

    # ---- stages

    def prompts(self) -> Saved:
        """Prompts, of which every tenth is held out, and the dimensions."""
        n = len(self.prompt_ids)
        splits = ["test" if i < self.held_out else "train" for i in range(n)]
        prompts = pa.table({"prompt_id": self.prompt_ids, "split": splits, "text": self.texts(n)})
        dimensions = pa.table(
            {
                "position": range(len(self.names)),
                "dimension": self.names,
                "description": [d.description for d in self.problem.dimensions],
            }
        )
        return self._product("prompts"), {"prompts": prompts, "dimensions": dimensions}

    def responses(self) -> Saved:
        """Samples of the reference policy."""
        n = self.sizes.responses
        self.response_ids = self.ids(n)
        columns = {
            "response_id": self.response_ids,
            "prompt_id": self._pick(self.prompt_ids, n),
            "source": _same("reference", n),
            "text": self.texts(n),
        }
        return self._product("responses"), {"responses": pa.table(columns)}

    def pairs(self) -> Saved:
        """Pairs of responses."""
        n = self.sizes.pairs
        self.pair_ids = self.ids(n)
        columns = {
            "pair_id": self.pair_ids,
            "prompt_id": self._pick(self.prompt_ids, n),
            "split": _same("train", n),
            "response_a": self._pick(self.response_ids, n),
            "response_b": self._pick(self.response_ids, n),
        }
        return self._product("pairs"), {"pairs": pa.table(columns)}

    def labels(self) -> Saved:
        """Votes of three annotators on both dimensions of every pair."""
        m, n = len(self.names), self.sizes.pairs * len(self.names)
        columns = {
            "pair_id": self.pair_ids.take(np.repeat(np.arange(self.sizes.pairs), m)),
            "dimension": pa.array(self.names).take(np.tile(np.arange(m), self.sizes.pairs)),
            "label": self._rng.integers(0, 4, n) / 3,
            "status": _same("ok", n),
            "source": _same("world", n),
            "annotator": _same("3 simulated", n),
            "confidence": pa.nulls(n, pa.float64()),
            "reason": pa.nulls(n, pa.string()),
        }
        return self._product("preference_labels"), {"preference_labels": pa.table(columns)}

    def _reward_model(self, dimension: str) -> list[Saved]:
        metrics = ("accuracy", "majority", "best_possible", "length_only", "accuracy/bake bread")
        model = {
            "reward_model_metrics": pa.table(
                {
                    "dimension": _same(dimension, len(metrics)),
                    "metric": metrics,
                    "value": [0.7, 0.5, 0.75, 0.6, 0.7],
                    "low": [0.68, None, None, 0.58, 0.65],
                    "high": [0.72, None, None, 0.62, 0.75],
                    "n": [5000] * len(metrics),
                }
            ),
            "reward_calibration": _bins(dimension),
            "training_curves": self._curve("reward_model", [("loss", "")]),
        }
        n = self.sizes.responses
        columns = {
            "response_id": self.response_ids,
            "dimension": _same(dimension, n),
            "raw": self.numbers(n),
            "reward": self.numbers(n),
        }
        rewards = {"response_rewards": pa.table(columns)}
        stages = [("reward_models", model), ("response_rewards", rewards)]
        return [(self._product(stage, dimension), tables) for stage, tables in stages]

    def _policy(self, method: str) -> Saved:
        cost = {"method": [method], "steps": [STEPS], "seconds": [60.0], "tokens": [500_000]}
        cost |= {"trained_parameters": [20_000], "stored_parameters": [20_000]}
        other = self.names[1]
        metrics = [("loss", name) for name in ["", *self.names]]
        metrics += [(f"gradient_cosine/{self.names[0]}", other)]
        metrics += [(f"scale/layers.{i}.q_proj", "") for i in range(2)]
        tables = {"policies": pa.table(cost), "training_curves": self._curve(method, metrics)}
        return self._product(policy_stage(method), method), tables

    def _curve(self, method: str, metrics: list[tuple[str, str]]) -> pa.Table:
        rows = [(step, *named) for named in metrics for step in range(1, STEPS + 1)]
        return pa.table(
            {
                "method": _same(method, len(rows)),
                "step": [step for step, _, _ in rows],
                "metric": [metric for _, metric, _ in rows],
                "dimension": [dimension for _, _, dimension in rows],
                "value": self.numbers(len(rows)),
            }
        )

    def generations(self) -> list[Saved]:
        """Every method's answers, with their rewards by both judges."""
        return [(self._product("generations", m), self.answers(m)) for m in self.plan.methods]

    def answers(self, method: str) -> dict[str, pa.Table]:
        """One method's rows of preference_grid, generations and generation_rewards."""
        points, m = self.grid.shape
        n = points * self.held_out * SAMPLES
        ids = self.ids(n)
        point = np.repeat(np.arange(points), self.held_out * SAMPLES)
        row = np.tile(np.repeat(np.arange(self.held_out), SAMPLES), points)
        logprob = -np.abs(self.numbers(n)) * 4
        answers = {
            "generation_id": ids,
            "method": _same(method, n),
            "point": np.full(n, EVERY_POINT) if method == "reference" else point,
            "prompt_id": self.prompt_ids.take(row),
            "sample": np.tile(np.arange(SAMPLES), points * self.held_out),
            "text": self.texts(n),
            "tokens": self._rng.integers(8, 30, n),
            "logprob": logprob,
            "reference_logprob": logprob - 1.0,
        }
        grid = {
            "point": np.repeat(np.arange(points), m),
            "dimension": self.names * points,
            "weight": self.grid.ravel(),
        }
        repeated = ids.take(np.repeat(np.arange(n), m))
        rewards = [
            pa.table(
                {
                    "generation_id": repeated,
                    "dimension": pa.array(self.names).take(np.tile(np.arange(m), n)),
                    "judge": _same(judge, n * m),
                    "reward": self.numbers(n * m),
                }
            )
            for judge in JUDGES
        ]
        return {
            "preference_grid": pa.table(grid),
            "generations": pa.table(answers),
            "generation_rewards": pa.concat_tables(rewards),
        }

    def _front(self) -> Saved:
        rewards, values, figures = [], [], []
        for method in ["optimum", *self.plan.methods]:
            for judge in JUDGES:
                for point, weights in enumerate(self.grid.tolist()):
                    for name, weight in zip(self.names, weights, strict=True):
                        mean = (weight, weight - 0.1, weight + 0.1)
                        rewards.append((method, judge, point, name, weight, *mean, 64))
                    values.append((method, judge, point, 0.3, 0.2, 0.4, 0.5, 0.1, 0.9, 64))
                if method != "optimum":
                    shares = [(0.9, 0.85, 0.95), (0.5, 0.4, 0.6)]
                    named = [(f, *shares[f != FIGURES[0]]) for f in (*FIGURES, *MORE_FIGURES)]
                    figures += [(method, judge, *figure, 64) for figure in named]
        reward_names = "method judge point dimension weight reward reward_low reward_high n"
        value_names = "method judge point kl kl_low kl_high value reference_value optimal_value n"
        figures += [("optimum", "proxy", name, 9.0, None, None, 64) for name in OF_THE_RULER]
        return self._product("pareto_front"), {
            "front_rewards": _columns(reward_names, rewards),
            "front_values": _columns(value_names, values),
            "front_metrics": _columns("method judge metric value low high n", figures),
            **self._beside_the_front(),
        }

    def _beside_the_front(self) -> dict[str, pa.Table]:
        """Comparisons, costs of answering and sliders."""
        methods = self.plan.methods
        compared = [
            (*pair, judge, metric, 0.1, 0.05, 0.15)
            for pair in permutations(methods, 2)
            for judge in JUDGES
            for metric in ("value_ratio", "charged_hypervolume", "expected_utility")
        ]
        costs = [(method, 1, int(method != "reference")) for method in methods]
        sliders = [
            (method, JUDGES[0], True, first, name, weight)
            for method in methods[1:]
            for first, second in self.grid.tolist()
            for name, weight in zip(self.names, (first, second), strict=True)
        ]
        return {
            "front_comparisons": _columns(
                "method other judge metric difference low high", compared
            ),
            "answering_costs": _columns("method forwards_per_token adapters", costs),
            "sliders": _columns("method judge calibrated position dimension weight", sliders),
        }


def planned(workspace: Workspace) -> tuple[Problem, Plan]:
    """The problem and the keys under which its products lie."""
    path = find_problems(workspace)[PROBLEM]
    problem = load_problem(path, workspace)
    return problem, Plan.of(problem, path)


def _bins(dimension: str) -> pa.Table:
    """Ten bins of a perfect reward model, before and after scaling."""
    rows = [(scaled, i, 0.5 + i / 20) for scaled in (False, True) for i in range(10)]
    scaled, number, share = zip(*rows, strict=True)
    figures = dict.fromkeys(("predicted", "observed", "low", "high"), share)
    columns = {"dimension": _same(dimension, len(rows)), "scaled": scaled, "bin": number}
    return pa.table({**columns, "n": [500] * len(rows), **figures})


def _same(value: str, count: int) -> pa.Array:
    return pa.repeat(value, count)


def _columns(names: str, rows: list[tuple]) -> pa.Table:
    return pa.table({name: [row[i] for row in rows] for i, name in enumerate(names.split())})
