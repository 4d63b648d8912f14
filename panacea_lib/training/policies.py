"""The policies of a problem, by the name of their method.

panacea         the adapter, with the problem's own training method
panacea_dpo     the adapter, with the paper's recipe: linear scalarization of DPO losses
rewarded_soups  one LoRA per dimension with DPO, weights interpolated at inference
                (arXiv 2306.04488); the steps are shared out, so all three cost the same
"""

import json
import shutil
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from panacea_lib.problem import Problem
from panacea_lib.trainers import StepListener, TrainResult
from panacea_lib.training.train import TrainConfig, train


def train_policy(
    problem: Problem,
    method: str,
    base_folder: Path,
    pairs: Any,
    folder: Path,
    checkpoints: Path,
    seed: int,
    max_steps: int | None = None,
    on_step: StepListener | None = None,
) -> TrainResult:
    """Train `method` on `pairs` and leave the finished adapters in `folder`.

    pairs: an Arrow table with prompt, response_a, response_b, label (list of m, NaN unknown) and
    reward_delta (list of m). `checkpoints` is the working folder: a run that died goes on there,
    and adapters that were finished are not trained again. ValueError for an unknown method.
    """
    import pyarrow.parquet as parquet

    checkpoints.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pairs, checkpoints / "pairs.parquet")
    started, results = time.monotonic(), {}
    configs = _configs(problem, method, base_folder, checkpoints / "pairs.parquet", seed, max_steps)
    for name, config in configs.items():
        results[name] = _finish(config, checkpoints / name, on_step)
        shutil.copytree(checkpoints / name / "adapter", folder / name, dirs_exist_ok=True)
    return _together(results, time.monotonic() - started)


def _finish(config: TrainConfig, out_dir: Path, on_step: StepListener | None) -> TrainResult:
    """The result of an adapter that was finished before, or of training it now."""
    if (done := out_dir / "result.json").exists():
        return TrainResult(**json.loads(done.read_text(encoding="utf-8")))
    out_dir.mkdir(parents=True, exist_ok=True)
    text = config.model_dump_json(indent=1)
    (out_dir / "config.json").write_text(text, encoding="utf-8")
    return train(config, out_dir, on_step)


def _configs(
    problem: Problem, method: str, base_folder: Path, pairs: Path, seed: int, max_steps: int | None
) -> dict[str, TrainConfig]:
    """One training configuration per adapter of the method, by the adapter's name."""
    numbers = problem.training_of(method)
    steps = min(numbers.steps, max_steps or numbers.steps)
    m = len(problem.dimensions)
    common: dict[str, Any] = {
        "base_model": str(base_folder),
        "quantization": problem.base_model.quantization,
        "dimensions": problem.dimension_names,
        "beta": problem.beta,
        "max_length": problem.base_model.max_length,
        "pairs": str(pairs),
        "seed": seed,
    }
    if method in ("panacea", "panacea_dpo"):
        objective = numbers.method if method == "panacea" else "dpo"
        training = numbers.model_copy(update={"steps": steps})
        return {"panacea": TrainConfig(method=objective, training=training, **common)}
    if method == "rewarded_soups":
        training = numbers.model_copy(update={"steps": max(1, steps // m)})
        return {
            name: TrainConfig(
                method="dpo",
                adapter="lora",
                fixed_preference=[float(i == j) for j in range(m)],
                training=training,
                **common,
            )
            for i, name in enumerate(problem.dimension_names)
        }
    raise ValueError(f"unknown method {method!r}: panacea, panacea_dpo or rewarded_soups")


def _together(results: dict[str, TrainResult], seconds: float) -> TrainResult:
    """One result for all adapters of a method: costs add up, curves are averaged by step."""
    total: dict[str, Any] = {"seconds": seconds}
    for name in ("steps", "tokens", "trained_parameters"):
        total[name] = sum(result.details[name] for result in results.values())
    total["stored_parameters"] = total["trained_parameters"]
    values: dict[tuple[int, str, str], list[float]] = defaultdict(list)
    for name, result in results.items():
        for row in result.curves:
            # A LoRA of one dimension says nothing of the others' losses.
            if len(results) == 1 or row["dimension"] in ("", name):
                values[row["step"], row["dimension"], row["metric"]].append(row["value"])
    curves = [
        {"step": step, "dimension": dimension, "metric": metric, "value": sum(v) / len(v)}
        for (step, dimension, metric), v in values.items()
    ]
    return TrainResult(total, curves)
