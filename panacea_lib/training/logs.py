"""How a training went: what trainers log beside TRL's own lines, and all of it as tidy rows."""

import time
from typing import Any

from torch import nn
from transformers import TrainerCallback

from panacea_lib.adapter import PanaceaLayer

_OF_THE_STEP = {"loss", "grad_norm", "learning_rate", "kl", "tail"}


class ScaleCallback(TrainerCallback):
    """Adds the scale s of λ in every adapted matrix to each log line, as `scale/<layer>`.

    s is what λ weighs: where it stays near 0, that matrix does not heed preferences.
    """

    def on_log(self, args: Any, state: Any, control: Any, *, model: nn.Module, **_: Any) -> None:
        """transformers has just appended the line to the history."""
        for name, layer in model.named_modules():
            if isinstance(layer, PanaceaLayer):
                short = name.removeprefix("base_model.model.").removeprefix("model.")
                scale = layer.factors(layer.active_adapters[0]).scale
                state.log_history[-1][f"scale/{short}"] = scale.item()


class TimeCallback(TrainerCallback):
    """Adds the seconds that the training has taken to each log line, as `seconds`.

    A resumed training counts on from the last line of its checkpoint, which is of the same step;
    the steps that a killed process had taken since are not counted.
    """

    def __init__(self) -> None:
        self._started = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take what earlier processes have counted; 0 in a checkpoint without such a line."""
        lines = state.log_history or [{}]
        self._started -= lines[-1].get("seconds", 0.0)

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """transformers has just appended the line to the history."""
        state.log_history[-1]["seconds"] = self.seconds()

    def seconds(self) -> float:
        """Since the training began, without the time in which no process trained."""
        return time.monotonic() - self._started


def training_curves(
    log_history: list[dict[str, Any]], dimensions: list[str]
) -> list[dict[str, Any]]:
    """transformers' log as rows (step, dimension, metric, value).

    dimension is '' for a metric of the whole step. `gradient_cosine/<other>` of a dimension is the
    cosine between both (`objectives.conflict`); `scale/<layer>` that layer's s.
    """
    rows = []
    for entry in log_history:
        for key, value in sorted(entry.items()):  # a resumed history is read in this order
            metric, _, dimension = key.rpartition("/")
            if dimension not in dimensions:
                metric, dimension = key, ""
                if key not in _OF_THE_STEP and not key.startswith("scale/"):
                    continue
            row = {"step": entry["step"], "dimension": dimension, "metric": metric}
            rows.append({**row, "value": float(value)})
    return rows
