"""The policies of a problem, by the name of their method.

panacea                the adapter, with the problem's own training method
panacea_dpo            the adapter, with the paper's recipe: linear scalarization of DPO losses
panacea_sft            the adapter, trained on the answers that each dimension prefers
panacea_rloo           the adapter, trained online on Σ λᵢ·rᵢ − β·KL
rewarded_soups         one LoRA per dimension, weights interpolated at inference (arXiv 2306.04488)
mod                    the same LoRAs, mixed token by token (arXiv 2406.18853)
lora_per_preference    one LoRA for each λ of a small set
prompt_conditioned     one LoRA that reads λ before the prompt (arXiv 2402.10207, 2503.00295)
oracle                 one LoRA for each λ of a small set, by the problem's own training method

A method's steps are shared out among its adapters, so that all take the same number of them; only
the oracle has them for each of its adapters.
"""

import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet

from panacea_lib.baseline_policies import PREFERENCES_FILE, PROMPT_LORA
from panacea_lib.lease import HANDOVER, LeaseHeldError, hold, lease_of
from panacea_lib.problem import Problem
from panacea_lib.problem_training import PER_PREFERENCE
from panacea_lib.rewards.judge import RewardSource
from panacea_lib.train_result import StepListener, TrainResult
from panacea_lib.training.config import TrainConfig
from panacea_lib.training.processes import is_main_process, meet
from panacea_lib.training.record import check_same_training
from panacea_lib.training.train import train


def train_policy(
    problem: Problem,
    method: str,
    base_folder: Path,
    pairs: pa.Table | Path,
    folder: Path,
    checkpoints: Path,
    seed: int,
    max_steps: int | None = None,
    on_step: StepListener | None = None,
    rewards: RewardSource | None = None,
    stop_wanted: Callable[[], bool] | None = None,
    lease_timeout: float = HANDOVER,
) -> TrainResult:
    """Train `method` on `pairs` and leave the finished adapters in `folder`.

    pairs: a table with prompt, response_a, response_b, label (list of m, NaN unknown) and
    reward_delta (list of m), for sft also one with prompt, response and dimension, or its Parquet
    file, which several processes need; rewards: who judges the answers that RLOO samples.
    `checkpoints` is the working folder: a run that died goes on there, and adapters that were
    finished are not trained again.

    ValueError for an unknown method; LeaseHeldError, naming the other, where another process still
    trains this policy after `lease_timeout` seconds: one that was killed needs a few to end; and
    what `train` raises.
    """
    checkpoints.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        if is_main_process():
            held.enter_context(_alone(method, checkpoints, lease_timeout))
        meet()  # the others, too, find what the holder of the lease finds
        if isinstance(pairs, pa.Table):
            parquet.write_table(pairs, checkpoints / "pairs.parquet")
            pairs = checkpoints / "pairs.parquet"
        results = {}
        common = {
            "base_model": str(base_folder),
            "quantization": problem.base_model.quantization,
            "dimensions": problem.dimension_names,
            "beta": problem.beta,
            "max_length": problem.base_model.max_length,
            "pairs": str(pairs),
            "rewards": rewards,
            "seed": seed,
        }
        for name, config in training_configs(problem, method, common, max_steps).items():
            results[name] = _finish(config, checkpoints / name, on_step, stop_wanted)
        if is_main_process():
            _collect(problem, method, checkpoints, list(results), folder)
    return _together(results, problem.dimension_names)


@contextmanager
def _alone(method: str, checkpoints: Path, timeout: float) -> Iterator[None]:
    with ExitStack() as held:
        try:
            held.enter_context(hold(lease_of(checkpoints), f"the training of {method}", timeout))
        except LeaseHeldError as error:
            raise LeaseHeldError(
                f"another process trains this very policy ({method}): {error.holder}; wait until "
                "it has ended, or end it: its last checkpoint is taken over",
                error.holder,
            ) from None
        yield


def _collect(
    problem: Problem, method: str, checkpoints: Path, names: list[str], folder: Path
) -> None:
    """Copy the finished adapters, and which λ each is for."""
    for name in names:
        shutil.copytree(checkpoints / name / "adapter", folder / name, dirs_exist_ok=True)
    if method in PER_PREFERENCE:
        known = dict(zip(names, problem.lora_preferences, strict=True))
        (folder / PREFERENCES_FILE).write_text(json.dumps(known), encoding="utf-8")


def _finish(
    config: TrainConfig,
    out_dir: Path,
    on_step: StepListener | None,
    stop_wanted: Callable[[], bool] | None,
) -> TrainResult:
    """The result of an adapter that was finished before, or of training it now."""
    check_same_training(config, out_dir)
    if (done := out_dir / "result.json").exists():
        return TrainResult(**json.loads(done.read_text(encoding="utf-8")))
    out_dir.mkdir(parents=True, exist_ok=True)
    return train(config, out_dir, on_step, stop_wanted)


def training_configs(
    problem: Problem, method: str, common: Mapping[str, Any], max_steps: int | None = None
) -> dict[str, TrainConfig]:
    """One training configuration per adapter of the method, by the adapter's name.

    common: what all of them share, as fields of `TrainConfig`. ValueError for an unknown method.
    """
    adapters = _adapters(problem, method)
    numbers = problem.training_of(method)
    shares = 1 if method == "oracle" else len(adapters)
    steps = max(1, min(numbers.steps, max_steps or numbers.steps) // shares)
    training = numbers.model_copy(update={"steps": steps})
    return {
        name: TrainConfig(**common, **adapter, training=training)
        for name, adapter in adapters.items()
    }


def _adapters(problem: Problem, method: str) -> dict[str, dict[str, Any]]:
    """The adapters of a method by name: where λ acts in each."""
    names, m = problem.dimension_names, len(problem.dimensions)
    match method:
        case "panacea" | "panacea_dpo" | "panacea_sft" | "panacea_rloo":
            return {"panacea": {}}
        case "rewarded_soups" | "mod":
            preferences = {name: [float(i == j) for j in range(m)] for i, name in enumerate(names)}
        case "lora_per_preference" | "oracle":
            known = problem.lora_preferences
            preferences = {f"preference{i}": weights for i, weights in enumerate(known)}
        case "prompt_conditioned":
            return {PROMPT_LORA: {"adapter": "prompt_lora"}}
        case _:
            raise ValueError(f"unknown method {method!r}: `panacea_lib.training.policies` has all")
    return {
        name: {"adapter": "lora", "fixed_preference": weights}
        for name, weights in preferences.items()
    }


def _together(results: dict[str, TrainResult], dimensions: list[str]) -> TrainResult:
    """One result for all adapters of a method: costs add up, curves are averaged by step."""
    costs = ("steps", "seconds", "tokens", "trained_parameters")
    total = {name: sum(r.details[name] for r in results.values()) for name in costs}
    total["stored_parameters"] = total["trained_parameters"]
    values: dict[tuple[int, str, str], list[float]] = defaultdict(list)
    for name, result in results.items():
        for row in result.curves:
            # A LoRA of one dimension says nothing of the others' losses.
            if name not in dimensions or row["dimension"] in ("", name):
                values[row["step"], row["dimension"], row["metric"]].append(row["value"])
    curves = [
        {"step": step, "dimension": dimension, "metric": metric, "value": sum(v) / len(v)}
        for (step, dimension, metric), v in values.items()
    ]
    return TrainResult(total, curves)
