"""What a training's folder holds: so that nobody goes on with another training's checkpoints."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet

from panacea_lib.errors import InputError
from panacea_lib.training.config import TrainConfig

_FILE = "training.json"
_COLUMNS = ("prompt", "response", "response_a", "response_b", "dimension", "label", "reward_delta")
# Where things lie, and how the work is cut: they may change from one stretch to the next.
_FREE = {
    "pairs": True,
    "rewards": {"base_model", "folders"},
    "training": {"batch_size", "accumulation", "checkpoint_every", "gradient_checkpointing"},
}


def check_same_training(config: TrainConfig, out_dir: Path) -> None:
    """InputError where `out_dir` holds another training than `config`, or there are no pairs.

    What may differ: the folders in which things lie, the share of a step that is in memory at once
    (batch_size · accumulation stays), and how often a checkpoint is saved.
    """
    if not Path(config.pairs).is_file():
        raise InputError(f"{config.pairs}: there is no such file; `pairs` names what to train on")
    record = out_dir / _FILE
    if not record.exists():
        return
    before, now = json.loads(record.read_text(encoding="utf-8")), _identity(config)
    if differs := [name for name in now if now[name] != before.get(name)]:
        name = differs[0]
        raise InputError(
            f"{out_dir}: holds another training, which differs in {', '.join(differs)} "
            f"({name} was {before.get(name)} and is {now[name]}): name another folder, or delete "
            "this one"
        )


def record_training(config: TrainConfig, out_dir: Path) -> None:
    """Write what is trained in `out_dir`, before the first checkpoint is; whole at any time."""
    out_dir.mkdir(parents=True, exist_ok=True)
    aside = out_dir / f"{_FILE}.partial"
    aside.write_text(json.dumps(_identity(config), indent=1), encoding="utf-8")
    aside.replace(out_dir / _FILE)


def _identity(config: TrainConfig) -> dict[str, Any]:
    """All that decides what is trained, as JSON gives it back; of folders their names."""
    told = config.model_dump(mode="json", exclude=_FREE)
    if config.method != "rloo":
        told.pop("rewards")  # nobody asks them
    read = told.pop("training")
    training = {n: value for n, value in read.items() if n not in config.training.of_other_methods}
    training["rows_a_step"] = config.training.batch_size * config.training.accumulation
    told |= {f"training.{name}": value for name, value in training.items()}
    told["base_model"] = Path(config.base_model).name
    return told | {"pairs": _content(Path(config.pairs))}


def _content(pairs: Path) -> str:
    """A hash of the rows, which another version of Parquet's writer would not change."""
    table = parquet.read_table(pairs)
    told = hashlib.sha256()
    for name in _COLUMNS:
        if name in table.column_names:
            told.update(json.dumps([name, table[name].to_pylist()]).encode())
    return told.hexdigest()[:16]
