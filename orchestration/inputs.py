"""What stages read of each other's rows, as the library wants it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from orchestration.pair_texts import PAIR_TEXTS
from orchestration.upstream import Upstream
from panacea_lib.data import PreferenceData, load_preference_data, load_world_files
from panacea_lib.problem_data import WorldData
from panacea_lib.records import PairRecord, PromptRecord, ResponseRecord, from_table
from panacea_lib.rewards.scale import RewardScale

if TYPE_CHECKING:
    from panacea_lib.rewards.judge import ModelRewards

REWARD_BASE = "base"  # in a reward model's folder, where it is not made of the base model
_RESPONSE_TEXTS = """
select responses.response_id, responses.prompt_id, responses.source, prompts.text as prompt,
    responses.text
from facts.responses
join facts.prompts on prompts.key = $prompts and prompts.prompt_id = responses.prompt_id
where responses.key = $responses
order by responses.rowid
"""


def prompt_records(run: Upstream) -> list[PromptRecord]:
    """All prompts, in their order."""
    return from_table(run.rows("prompts", "prompts"), PromptRecord)


def read_data(run: Upstream) -> PreferenceData:
    """Responses, pairs and annotations that the problem's files or data sets hold; of the embedded
    world those of the files that are added to it."""
    if isinstance(run.problem.data, WorldData):
        return load_world_files(run.problem, run.problem_file, prompt_records(run))
    return load_preference_data(run.problem, run.problem_file)


def prompt_topics(run: Upstream) -> dict[str, str]:
    """Prompt → what it is about, where the data says."""
    rows = run.rows("prompt_topics", "prompts").to_pydict()
    return dict(zip(rows["prompt_id"], rows["topic"], strict=True))


def response_records(run: Upstream) -> list[ResponseRecord]:
    """All responses, in their order."""
    return from_table(run.rows("responses", "responses"), ResponseRecord)


def pair_records(run: Upstream) -> list[PairRecord]:
    """All pairs, in their order."""
    return from_table(run.rows("pairs", "pairs"), PairRecord)


def pair_texts(run: Upstream) -> pa.Table:
    """Pairs with their texts: pair_id, prompt_id, split, prompt, response_a, response_b, id_a and
    id_b."""
    stages = ("prompts", "responses", "pairs")
    return run.warehouse.read(PAIR_TEXTS, {stage: run.made(stage) for stage in stages})


def response_texts(run: Upstream) -> pa.Table:
    """Responses with their prompts: response_id, prompt_id, source, prompt, text."""
    stages = ("prompts", "responses")
    return run.warehouse.read(_RESPONSE_TEXTS, {stage: run.made(stage) for stage in stages})


def label_matrix(run: Upstream, pair_ids: list[str], dimensions: list[str]) -> np.ndarray:
    """P(a preferred) per pair and dimension, shape (N, m); NaN where it is unknown or failed."""
    rows = run.rows("preference_labels", "preference_labels").to_pydict()
    position = {pair: i for i, pair in enumerate(pair_ids)}
    column = {dimension: j for j, dimension in enumerate(dimensions)}
    matrix = np.full((len(pair_ids), len(dimensions)), np.nan)
    for pair, dimension, label in zip(
        rows["pair_id"], rows["dimension"], rows["label"], strict=True
    ):
        if label is not None and dimension in column and pair in position:
            matrix[position[pair], column[dimension]] = label
    return matrix


def score_differences(run: Upstream, dimension: str) -> dict[str, float]:
    """Pair → by how much its responses' graded scores differ, a less b.

    By the source that its label is from, the first that has one; only pairs that it has graded.
    """
    decided: set[str] = set()
    found: dict[str, float] = {}
    for part, (name, _) in run.plan.label_parts.items():
        if name != dimension:
            continue
        rows = run.rows("annotations", "annotations", part).to_pylist()
        labelled = [row for row in rows if row["label"] is not None]
        graded: dict[str, list[float]] = {}
        for row in labelled:
            if row["score_a"] is not None and row["score_b"] is not None:
                graded.setdefault(row["pair_id"], []).append(row["score_a"] - row["score_b"])
        own = graded.keys() - decided
        found |= {pair: sum(graded[pair]) / len(graded[pair]) for pair in own}
        decided |= {row["pair_id"] for row in labelled}
    return found


def reward_matrix(run: Upstream, response_ids: list[str]) -> np.ndarray:
    """Normalised rewards by the learned models, shape (N, m)."""
    columns = []
    for dimension in run.problem.dimension_names:
        rows = run.rows("response_rewards", "response_rewards", dimension).to_pydict()
        reward = dict(zip(rows["response_id"], rows["reward"], strict=True))
        columns.append([reward[response] for response in response_ids])
    return np.array(columns).T


def training_table(run: Upstream, with_rewards: bool) -> pa.Table:
    """The pairs a policy learns from: row, prompt, response_a, response_b, label, reward_delta.

    `label` and `reward_delta` (reward of a less reward of b) have one entry per dimension; NaN is
    unknown, and every reward is where it is not needed.
    """
    pairs = pair_texts(run)
    pairs = pairs.filter(pc.field("split") == "train")
    names = run.problem.dimension_names
    labels = label_matrix(run, pairs["pair_id"].to_pylist(), names)
    delta = np.full(labels.shape, np.nan)
    if with_rewards:
        a, b = (reward_matrix(run, pairs[column].to_pylist()) for column in ("id_a", "id_b"))
        delta = a - b
    texts = {name: pairs[name] for name in ("prompt", "response_a", "response_b")}
    return pa.table(
        {
            "row": np.arange(pairs.num_rows),
            **texts,
            "label": pa.array(list(labels), pa.list_(pa.float64())),
            "reward_delta": pa.array(list(delta), pa.list_(pa.float64())),
        }
    )


def demonstration_table(run: Upstream) -> pa.Table:
    """The training side's demonstrations, for supervised fine-tuning: prompt, response, dimension.

    They are read from the data again, as the base model's corpus is; the keys of the labels hold
    what the data is.
    """
    found = load_preference_data(run.problem, run.problem_file).demonstrations
    rows = [(d.prompt, d.response, d.dimension) for d in found if d.split == "train"]
    columns = zip(*rows, strict=True) if rows else ([], [], [])
    return pa.table(dict(zip(("prompt", "response", "dimension"), map(list, columns), strict=True)))


def proxy_scale(run: Upstream) -> RewardScale:
    """The scale of the learned rewards, shape (m,)."""
    names = run.problem.dimension_names
    parts = [_scale(run.details("response_rewards", name)["scale"]) for name in names]
    mean, scale = (np.concatenate([getattr(p, name) for p in parts]) for name in ("mean", "scale"))
    return RewardScale(mean, scale)


def reward_folders(run: Upstream) -> list[Path]:
    """The learned reward models: a folder for each dimension, or one with a head for each."""
    return [run.artifact("reward_models", part) for part in run.plan.parts("reward_models")]


def reward_base(run: Upstream) -> Path:
    """What the reward models are made of: the problem's base model, or their own."""
    if run.problem.rewards.model is None:
        return run.artifact("base_model")
    return reward_folders(run)[0] / REWARD_BASE


def reward_source(run: Upstream) -> "ModelRewards":
    """The learned reward models as online training asks them."""
    from panacea_lib.rewards.judge import ModelRewards

    loaded = run.problem.rewards.model or run.problem.base_model
    scale = proxy_scale(run)
    return ModelRewards(
        base_model=str(reward_base(run)),
        quantization=loaded.quantization,
        max_length=loaded.max_length,
        folders=[str(folder) for folder in reward_folders(run)],
        mean=scale.mean.tolist(),
        scale=scale.scale.tolist(),
    )


def gold_scale(run: Upstream) -> RewardScale:
    """The scale of the embedded world's gold rewards, shape (m,)."""
    return _scale(run.details("preference_labels")["gold_scale"])


def _scale(values: dict[str, Any]) -> RewardScale:
    return RewardScale.from_dict(values)
