"""One trunk of the reward models: trained, then tried on the validation pairs."""

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from orchestration.curves import curves_table
from orchestration.inputs import (
    REWARD_BASE,
    gold_scale,
    label_matrix,
    pair_records,
    pair_texts,
    prompt_records,
    prompt_topics,
    response_records,
    score_differences,
)
from orchestration.stage import Made, StageRun
from panacea_lib.problem_data import WorldData
from panacea_lib.problem_files import expand_hub_id
from panacea_lib.rewards.quality import (
    HeldOutPairs,
    Quality,
    length_difference,
    prefers_longer,
    reward_quality,
)

if TYPE_CHECKING:
    from panacea_lib.rewards.train import LabelledPair

Value = TypeVar("Value")
_METRICS = pa.schema(
    [
        ("dimension", pa.string()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("n", pa.int64()),
    ]
)
_CALIBRATION = pa.schema(
    [
        ("dimension", pa.string()),
        ("scaled", pa.bool_()),
        ("bin", pa.int64()),
        ("n", pa.int64()),
        ("predicted", pa.float64()),
        ("observed", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
    ]
)


def dimensions_of(run: StageRun, part: str) -> list[str]:
    """What a part of `reward_models` scores, in the order of its heads."""
    return [name for name in run.problem.dimension_names if run.plan.reward_model_of(name) == part]


def train_part(run: StageRun, part: str, folder: Path, checkpoints: Path) -> Made:
    """Train, and say how good it is on each of its dimensions."""
    from panacea_lib.rewards.train import train_reward_trunk

    names, shared = dimensions_of(run, part), run.problem.rewards.trunk == "shared"
    loaded = run.problem.rewards.model or run.problem.base_model
    config = run.problem.rewards
    config = config.model_copy(update={"steps": run.plan.steps(config.steps)})
    base = _base(run, folder)
    pairs = pair_texts(run)
    labels = label_matrix(run, pairs["pair_id"].to_pylist(), names)
    training = {
        name if shared else "": _training_pairs(run, pairs, labels[:, i], name)
        for i, name in enumerate(names)
    }
    how = (config, base, loaded.quantization, loaded.max_length)
    listener = run.reporter.listener(part)
    result = train_reward_trunk(*how, training, folder, checkpoints, run.plan.seed, listener)
    found = _try(run, names, pairs, labels, folder, base)
    curves = curves_table("reward_model", result.curves, None if shared else part)
    return Made(
        {
            "reward_model_metrics": _rows(_METRICS, {n: q.metrics for n, q in found.items()}),
            "reward_calibration": _rows(_CALIBRATION, {n: q.calibration for n, q in found.items()}),
            "training_curves": curves,
        },
        result.details,
    )


def _base(run: StageRun, folder: Path) -> Path:
    """What the model is made of; one of its own is named inside `folder`."""
    config = run.problem.rewards.model
    if config is None:
        return run.artifact("base_model")
    from panacea_lib.models.base import point_to, refused_unless_loaded
    from panacea_lib.rewards.train import load_classifier

    place = expand_hub_id(config.model, run.problem_file)
    (folder / REWARD_BASE).mkdir()
    point_to(config.model_copy(update={"model": place}), folder / REWARD_BASE)
    with refused_unless_loaded(f"rewards.model.model {config.model!r}", "a language model"):
        load_classifier(folder / REWARD_BASE, config.quantization)
    return folder / REWARD_BASE


def _training_pairs(
    run: StageRun, pairs: pa.Table, labels: np.ndarray, dimension: str
) -> "list[LabelledPair]":
    """The training side's pairs that have a label; with margins where they are asked for."""
    from panacea_lib.rewards.train import LabelledPair

    margins = score_differences(run, dimension) if run.problem.rewards.margin else {}
    names = ("pair_id", "split", "prompt", "response_a", "response_b")
    columns = (pairs[name].to_pylist() for name in names)
    return [
        LabelledPair(prompt, a, b, float(label), margins.get(pair))
        for pair, split, prompt, a, b, label in zip(*columns, labels, strict=True)
        if split == "train" and np.isfinite(label)
    ]


def _try(
    run: StageRun,
    names: list[str],
    pairs: pa.Table,
    labels: np.ndarray,
    folder: Path,
    base: Path,
) -> dict[str, Quality]:
    """The quality of a trained model on each dimension; labels (N, m) of all pairs."""
    from panacea_lib.rewards.score import RewardModels, once_each

    loaded = run.problem.rewards.model or run.problem.base_model
    sides = np.array(pairs["split"].to_pylist())
    tried = (sides == "validation") & np.isfinite(labels).any(axis=1)
    own = pairs.filter(pa.array(tried))
    texts = [own[name].to_pylist() for name in ("prompt", "response_a", "response_b")]
    models = RewardModels(base, loaded.quantization, [folder], loaded.max_length)
    scores = once_each(models.scores, texts[0] * 2, texts[1] + texts[2])
    score_a, score_b = scores[: own.num_rows], scores[own.num_rows :]
    gold = _gold_probability(run, names)
    topics = _topics(run, own)
    training = pairs.filter(pc.field("split") == "train")
    longer = length_difference(
        training["response_a"].to_pylist(), training["response_b"].to_pylist()
    )
    found = {}
    for i, name in enumerate(names):
        known = np.isfinite(labels[tried, i])
        taught = labels[sides == "train", i]
        held_out = HeldOutPairs(
            label=labels[tried, i][known],
            prompt=_kept(own["prompt_id"].to_pylist(), known),
            a=_kept(texts[1], known),
            b=_kept(texts[2], known),
            gold=None if gold is None else gold[tried, i][known],
            topic=_kept(topics, known),
        )
        seen = np.isfinite(taught)
        longer_wins = prefers_longer(taught[seen], longer[seen])
        found[name] = reward_quality(score_a[known, i], score_b[known, i], held_out, longer_wins)
    return found


def _kept(values: list[Value], keep: np.ndarray) -> list[Value]:
    return [value for value, kept in zip(values, keep, strict=True) if kept]


def _gold_probability(run: StageRun, dimensions: list[str]) -> np.ndarray | None:
    """The true P(a preferred) of every pair where the embedded world knows it, shape (N, m)."""
    if not isinstance(run.problem.data, WorldData):
        return None
    from panacea_lib.world.annotators import preference_probability

    names = run.problem.dimension_names
    records = (prompt_records(run), response_records(run), pair_records(run))
    known = preference_probability(*records, names, gold_scale(run))
    return known[:, [names.index(name) for name in dimensions]]


def _topics(run: StageRun, pairs: pa.Table) -> list[str | None]:
    """What the prompt of each pair is about, where the embedded world knows it or the data says."""
    if not isinstance(run.problem.data, WorldData):
        told = prompt_topics(run)
        return [told.get(prompt) for prompt in pairs["prompt_id"].to_pylist()]
    from panacea_lib.world.grammar import all_prompts

    known = all_prompts()
    return [known[prompt].topic.name for prompt in pairs["prompt"].to_pylist()]


def _rows(schema: pa.Schema, by_dimension: dict[str, list[dict]]) -> pa.Table:
    rows = [{"dimension": name, **row} for name, own in by_dimension.items() for row in own]
    return pa.Table.from_pylist(rows, schema=schema)
