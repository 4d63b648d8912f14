"""Small real things that several test modules share: a base model trained in a second or two, pairs
of the embedded world's answers, and training configurations for them. Made once per process."""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from panacea_lib.models.base import build_base_model
from panacea_lib.problem_data import WorldData
from panacea_lib.problem_models import ScratchModel
from panacea_lib.problem_training import Method, PolicyTraining, PreferenceSampling
from panacea_lib.records import PromptRecord
from panacea_lib.training.train import TrainConfig
from panacea_lib.world.annotators import gold_raw_texts
from panacea_lib.world.data import world_corpus, world_prompts
from panacea_lib.world.grammar import all_answers, all_prompts, render

DIMENSIONS = ["helpfulness", "harmlessness"]
MODEL = ScratchModel(kind="scratch", hidden_size=32, layers=2, steps=150, batch_size=32)
BETA = 0.5


@cache
def scratch_folder() -> Path:
    """A folder of this process' own, gone when it ends."""
    folder = Path(tempfile.mkdtemp(prefix="panacea-small-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def small_prompts() -> tuple[PromptRecord, ...]:
    """100 prompts of the world."""
    return tuple(world_prompts(WorldData(kind="world", prompts=100), seed=0))


def texts_of(side: str, count: int) -> list[str]:
    """The first `count` prompts of one side of the split."""
    return [prompt.text for prompt in small_prompts() if prompt.split == side][:count]


@cache
def small_base() -> Path:
    """The folder of a base model that speaks the grammar, if not well."""
    folder = scratch_folder() / "base"
    folder.mkdir()
    corpus = world_corpus(MODEL, list(small_prompts()), seed=0)
    build_base_model(MODEL, corpus, folder, seed=0)
    return folder


def small_pairs(count: int = 64, seed: int = 0) -> dict[str, Any]:
    """Columns of `count` pairs of random answers: gold labels (1, 0, or 0.5 where alike) and gold
    reward differences."""
    rng = np.random.default_rng((seed, 99))
    prompts = texts_of("train", 20)
    asked = [prompts[i] for i in rng.integers(len(prompts), size=count)]
    answers = all_answers()
    chosen = rng.integers(len(answers), size=(2, count))
    a, b = (
        [render(all_prompts()[p], answers[i]) for p, i in zip(asked, row, strict=True)]
        for row in chosen
    )
    delta = gold_raw_texts(asked, a, DIMENSIONS) - gold_raw_texts(asked, b, DIMENSIONS)
    return {
        "prompt": asked,
        "response_a": a,
        "response_b": b,
        "label": (np.sign(delta) / 2 + 0.5).tolist(),
        "reward_delta": delta.tolist(),
    }


def write_pairs(path: Path, columns: dict[str, Any]) -> Path:
    """The pairs as the Parquet file that training reads."""
    parquet.write_table(pa.table(columns), path)
    return path


def small_config(pairs: Path, method: Method = "dpo", **changes: Any) -> TrainConfig:
    """A training of a few seconds; `changes` go to `training`, or to the whole where they fit."""
    numbers: dict[str, Any] = {
        "method": method,
        "steps": 4,
        "batch_size": 8,
        "learning_rate": 3e-3,
        "checkpoint_every": 100,
        "preferences": PreferenceSampling(),
    }
    own = {name: changes.pop(name) for name in list(changes) if name in TrainConfig.model_fields}
    return TrainConfig(
        **{
            "base_model": str(small_base()),
            "dimensions": DIMENSIONS,
            "beta": BETA,
            "max_length": MODEL.max_length,
            "training": PolicyTraining(**{**numbers, **changes}),
            "pairs": str(pairs),
            **own,
        }
    )
