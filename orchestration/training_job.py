"""What a run gives to the process that trains a policy for it, and what comes back: two JSON files.

The outcome is written once, whole, by whichever process of the training has something to say. One
that was killed says nothing.
"""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as parquet
from pydantic import Field

from panacea_lib.problem import Problem
from panacea_lib.problem_types import Strict
from panacea_lib.rewards.judge import RewardSource
from panacea_lib.train_result import StepListener, TrainResult

_JOB, _OUTCOME = "job.json", "outcome.json"


class TrainingJob(Strict):
    """The arguments of `panacea_lib.training.train_policy`."""

    problem: Problem
    method: str
    base_folder: Path
    pairs: Path
    checkpoints: Path
    seed: int
    max_steps: int | None
    rewards: Annotated[RewardSource, Field(discriminator="kind")] | None


def write_pairs(pairs: pa.Table, checkpoints: Path) -> Path:
    """The file with a policy's training data in its working folder; whole at any time."""
    file = checkpoints / "pairs.parquet"
    partial = file.with_suffix(".partial")
    parquet.write_table(pairs, partial)
    return partial.replace(file)


def train_here(
    job: TrainingJob,
    folder: Path,
    on_step: StepListener | None,
    stop_wanted: Callable[[], bool] | None = None,
) -> TrainResult:
    """Do the job in this process: the finished adapters stand in `folder`."""
    from panacea_lib.training import train_policy

    return train_policy(
        job.problem,
        job.method,
        job.base_folder,
        job.pairs,
        folder,
        job.checkpoints,
        job.seed,
        job.max_steps,
        on_step,
        job.rewards,
        stop_wanted,
    )


@dataclass(frozen=True)
class Told:
    """How a training ended: with its result, or with an error, by its class and what it says."""

    result: TrainResult | None = None
    error: str = ""
    message: str = ""


class LaunchFolder:
    """The folder of one launch, inside the working folder of its policy."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.adapters = path / "adapters"
        """What `train_policy` leaves."""

    @classmethod
    def new(cls, checkpoints: Path, job: TrainingJob) -> "LaunchFolder":
        """A new one, with its job."""
        folder = cls(checkpoints / f"launch-{uuid4().hex[:8]}")
        folder.adapters.mkdir(parents=True)
        (folder.path / _JOB).write_text(job.model_dump_json(indent=1), encoding="utf-8")
        return folder

    def job(self) -> TrainingJob:
        """What is to be trained."""
        return TrainingJob.model_validate_json((self.path / _JOB).read_text(encoding="utf-8"))

    def tell(self, told: Told) -> None:
        """Say how it ended; the first to say so is heard."""
        partial = self.path / f"{_OUTCOME}.{os.getpid()}"
        partial.write_text(json.dumps(asdict(told)), encoding="utf-8")
        if not (self.path / _OUTCOME).exists():
            partial.replace(self.path / _OUTCOME)

    def told(self) -> Told | None:
        """How it ended; None where nobody lived to say so."""
        if not (self.path / _OUTCOME).exists():
            return None
        read: dict[str, Any] = json.loads((self.path / _OUTCOME).read_text(encoding="utf-8"))
        result = TrainResult(**read["result"]) if read["result"] else None
        return Told(result, read["error"], read["message"])
