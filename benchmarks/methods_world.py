"""What all cells of `benchmarks.methods` share: a base model, pairs, labels, judges, the ruler.

Everything is that of the problem `demo`, made once in a work folder whose name is its content key.
Labels are exact (*gold*: P = σ(Δr) of the true rewards, and Δr itself) or those of three noisy
annotators (*noisy*: with reward models trained on them), the noise drawn by the cell's seed.
"""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from panacea_lib.evaluation.grid import preference_grid
from panacea_lib.evaluation.ruler import Ruler, exact_ruler
from panacea_lib.generation import sample_responses
from panacea_lib.labelling.pairs import random_pairs
from panacea_lib.models.base import build_base_model, load_base_model
from panacea_lib.plan import Plan
from panacea_lib.problem import Problem
from panacea_lib.problem_data import WorldData
from panacea_lib.problem_files import load_problem
from panacea_lib.problem_models import ScratchModel
from panacea_lib.records import (
    PairRecord,
    PromptRecord,
    ResponseRecord,
    from_table,
    response_id,
    to_table,
)
from panacea_lib.rewards.judge import ModelRewards, RewardSource, WorldRewards
from panacea_lib.rewards.scale import RewardScale
from panacea_lib.rewards.score import once_each, score_responses
from panacea_lib.rewards.train import LabelledPair, train_reward_model
from panacea_lib.workspace import PROJECT_ROOT
from panacea_lib.world.annotators import annotate, gold_raw, gold_raw_texts
from panacea_lib.world.data import world_corpus, world_prompts
from panacea_lib.world.exact import Enumeration, enumerate_reference
from panacea_lib.world.gold import GOLD_DIMENSIONS
from panacea_lib.world.grammar import all_prompts

Labels = Literal["gold", "noisy"]
DIMENSIONS = list(GOLD_DIMENSIONS)  # a benchmark at m takes the first m
DEMO = PROJECT_ROOT / "assets_data" / "problems" / "demo.yaml"
HELD_OUT = 64  # prompts
_SEED = 0  # of the world itself


class BenchmarkWorld:
    """The shared things, each made when it is first asked for and then read from `folder`."""

    def __init__(self, work: Path) -> None:
        self.problem = load_problem(DEMO)
        self.key = Plan.of(self.problem, DEMO, _SEED).key("pairs")
        self.folder = work / self.key[:12]
        self.base_folder = self.folder / "base"

    @property
    def judges(self) -> str:
        """How the reward models are trained that noisy labels are learned through."""
        numbers = self.problem.rewards
        return f"{numbers.steps}x{numbers.batch_size}-{numbers.learning_rate:g}"

    # ---- the world

    @property
    def data(self) -> WorldData:
        """The problem's section on data."""
        assert isinstance(self.problem.data, WorldData)
        return self.problem.data

    @cached_property
    def prompts(self) -> list[PromptRecord]:
        """All prompts."""
        return world_prompts(self.data, _SEED)

    @cached_property
    def held_out(self) -> list[str]:
        """The prompts that every policy is measured on."""
        test = [record for record in self.prompts if record.split == "test"]
        return [record.text for record in sorted(test, key=lambda r: r.prompt_id)[:HELD_OUT]]

    @cached_property
    def responses(self) -> list[ResponseRecord]:
        """Samples of the base model on the prompts of training and validation."""
        return from_table(self._table("responses", self._sample), ResponseRecord)

    @cached_property
    def pairs(self) -> list[PairRecord]:
        """Pairs of them."""
        return random_pairs(self.prompts, self.responses, self.data.pairs, _SEED)

    @cached_property
    def gold_scale(self) -> RewardScale:
        """Of the true rewards on all ten dimensions."""
        asked = [response.prompt_id for response in self.responses]
        return RewardScale.fit(asked, gold_raw(self.prompts, self.responses, DIMENSIONS))

    def prepare(self) -> None:
        """Make what every cell needs: the base model, its samples, the enumeration."""
        if not (self.base_folder / "done").exists():
            self.base_folder.mkdir(parents=True, exist_ok=True)
            config = self.problem.base_model
            assert isinstance(config, ScratchModel)
            corpus = world_corpus(config, self.prompts, _SEED)
            build_base_model(config, corpus, self.base_folder, _SEED)
            (self.base_folder / "done").touch()
        _ = self.responses, self._enumeration

    def _sample(self) -> list[ResponseRecord]:
        config, model = self.problem.reference, load_base_model(self.base_folder, "none")
        asked = [record for record in self.prompts if record.split != "test"]
        texts = sample_responses(
            *model,
            [record.text for record in asked],
            config.per_prompt,
            config.max_new_tokens,
            config.batch_size,
            _SEED,
            max_length=self.problem.base_model.max_length,
        )
        return [
            ResponseRecord(
                response_id(record.prompt_id, f"{i}", text), record.prompt_id, "base", text
            )
            for record, drawn in zip(asked, texts, strict=True)
            for i, text in enumerate(drawn)
        ]

    def _table(self, name: str, make: Any) -> pa.Table:
        import pyarrow.parquet as parquet

        path = self.folder / f"{name}.parquet"
        if not path.exists():
            parquet.write_table(to_table(make(), ResponseRecord), path)
        return parquet.read_table(path)

    # ---- the ruler

    @cached_property
    def _enumeration(self) -> Enumeration:
        """Of the held-out prompts, with all ten rewards."""
        path = self.folder / "enumeration.npz"
        if not path.exists():
            known = all_prompts()
            asked = [known[text] for text in self.held_out]
            model, tokenizer = load_base_model(self.base_folder, "none")
            scale = self.gold_scale
            found = enumerate_reference(
                model, tokenizer, asked, DIMENSIONS, scale.mean, scale.scale
            )
            np.savez(path, logprob=found.logprob, reward=found.reward)
        stored = np.load(path)
        return Enumeration(stored["logprob"], stored["reward"])

    def enumeration(self, m: int) -> Enumeration:
        """Of the held-out prompts, with the first m rewards."""
        whole = self._enumeration
        return Enumeration(whole.logprob, whole.reward[:, :, :m])

    def ruler(self, m: int) -> Ruler:
        """The exact ruler of the first m dimensions on `preference_grid(m)`."""
        return exact_ruler(self.enumeration(m), preference_grid(m), self.problem.beta)

    def gold_rewards(self, prompts: list[str], texts: list[str], m: int) -> np.ndarray:
        """Normalised true rewards of answers, shape (N, m)."""
        names = DIMENSIONS[:m]
        scale = RewardScale(self.gold_scale.mean[:m], self.gold_scale.scale[:m])
        return scale.apply(once_each(lambda p, t: gold_raw_texts(p, t, names), prompts, texts))

    # ---- what methods learn from

    def training_table(self, labels: Labels, m: int, seed: int) -> pa.Table:
        """As `panacea_lib.training.train_policy` reads it: the training side's pairs."""
        kept = [pair for pair in self.pairs if pair.split == "train"]
        text_of = {record.prompt_id: record.text for record in self.prompts}
        row_of = {response.response_id: i for i, response in enumerate(self.responses)}
        a, b = ([row_of[p.response_a] for p in kept], [row_of[p.response_b] for p in kept])
        names = DIMENSIONS[:m]
        if labels == "gold":
            reward = gold_raw(self.prompts, self.responses, DIMENSIONS)
            reward = self.gold_scale.apply(reward)[:, :m]
            delta = reward[a] - reward[b]
            label = 1 / (1 + np.exp(-delta))
        else:
            reward = np.stack([self._learned_rewards(name, seed) for name in names], axis=1)
            delta = reward[a] - reward[b]
            votes = [self._votes(name, seed) for name in names]
            label = np.array([[vote[pair.pair_id] for vote in votes] for pair in kept])
        return pa.table(
            {
                "prompt": [text_of[pair.prompt_id] for pair in kept],
                "response_a": [self.responses[i].text for i in a],
                "response_b": [self.responses[i].text for i in b],
                "label": pa.array(list(label), pa.list_(pa.float64())),
                "reward_delta": pa.array(list(delta), pa.list_(pa.float64())),
            }
        )

    def judge(self, labels: Labels, m: int, seed: int) -> RewardSource:
        """Who judges the answers of online training: the same rewards as above."""
        names = DIMENSIONS[:m]
        if labels == "gold":
            mean, scale = (
                values[:m].tolist() for values in (self.gold_scale.mean, self.gold_scale.scale)
            )
            return WorldRewards(dimensions=names, mean=mean, scale=scale)
        scales = [json.loads(self._scale_file(name, seed).read_text()) for name in names]
        return ModelRewards(
            base_model=str(self.base_folder),
            max_length=self.problem.base_model.max_length,
            folders=[str(self._reward_folder(name, seed)) for name in names],
            mean=[scale["mean"][0] for scale in scales],
            scale=[scale["scale"][0] for scale in scales],
        )

    def train_reward_model(self, dimension: str, seed: int) -> None:
        """From the noisy labels of a seed; found again if it was trained before."""
        if self._scale_file(dimension, seed).exists():
            return
        folder = self._reward_folder(dimension, seed)
        folder.mkdir(parents=True, exist_ok=True)
        base = self.problem.base_model
        train_reward_model(
            self.problem.rewards,
            self.base_folder,
            "none",
            base.max_length,
            self._labelled_pairs(dimension, seed),
            folder,
            folder / "checkpoints",
            seed,
        )
        text_of = {record.prompt_id: record.text for record in self.prompts}
        raw = score_responses(
            self.base_folder,
            "none",
            folder,
            base.max_length,
            [text_of[response.prompt_id] for response in self.responses],
            [response.text for response in self.responses],
        )
        scale = RewardScale.fit([response.prompt_id for response in self.responses], raw)
        np.save(folder / "rewards.npy", scale.apply(raw)[:, 0])
        self._scale_file(dimension, seed).write_text(json.dumps(scale.to_dict()))

    def _labelled_pairs(self, dimension: str, seed: int) -> list[LabelledPair]:
        text_of = {record.prompt_id: record.text for record in self.prompts}
        response = {record.response_id: record.text for record in self.responses}
        votes = self._votes(dimension, seed)
        return [
            LabelledPair(
                text_of[pair.prompt_id],
                response[pair.response_a],
                response[pair.response_b],
                votes[pair.pair_id],
            )
            for pair in self.pairs
            if pair.split == "train"
        ]

    def _votes(self, dimension: str, seed: int) -> dict[str, float]:
        """The noisy label of every pair."""
        i = DIMENSIONS.index(dimension)
        scale = RewardScale(self.gold_scale.mean[i : i + 1], self.gold_scale.scale[i : i + 1])
        said = annotate(
            self.prompts,
            self.responses,
            self.pairs,
            [dimension],
            scale,
            self.data.annotators,
            seed,
        )
        return {record.pair_id: record.label for record in said if record.label is not None}

    def _learned_rewards(self, dimension: str, seed: int) -> np.ndarray:
        return np.load(self._reward_folder(dimension, seed) / "rewards.npy")

    def _reward_folder(self, dimension: str, seed: int) -> Path:
        return self.folder / f"rewards-{seed}-{self.judges}" / dimension

    def _scale_file(self, dimension: str, seed: int) -> Path:
        return self._reward_folder(dimension, seed) / "scale.json"

    # ---- problems

    def problem_at(self, m: int, training: dict[str, Any], baselines: dict[str, Any]) -> Problem:
        """`demo` on the first m dimensions with other numbers."""
        told = self.problem.model_dump()
        dimensions = [{"name": name} for name in DIMENSIONS[:m]]
        return Problem(
            **told
            | {"dimensions": dimensions, "baselines": baselines}
            | {"training": told["training"] | training}
        )


def five_on_the_grid() -> Sequence[list[float]]:
    """λ of `preference_grid(2)` that a LoRA each is trained for."""
    return [[w, round(1 - w, 1)] for w in (0.0, 0.2, 0.5, 0.8, 1.0)]
