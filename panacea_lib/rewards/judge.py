"""Rewards of any answers, on the problem's one scale: what online training and tests ask."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import model_validator

from panacea_lib.problem_types import Quantization, Strict
from panacea_lib.rewards.scale import RewardScale
from panacea_lib.world.annotators import gold_raw_texts

Judge = Callable[[list[str], list[str]], np.ndarray]
"""(prompts, responses), one prompt beside each response → normalised rewards, shape (N, m)."""


class ModelRewards(Strict):
    """Learned reward models: the folder of each dimension's, or one folder with a head for each,
    and the scale of their scores."""

    kind: Literal["models"] = "models"
    base_model: str
    quantization: Quantization = "none"
    max_length: int
    folders: list[str]
    mean: list[float]
    scale: list[float]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.folders) == 1:
            _same_length(mean=self.mean, scale=self.scale)
        else:
            _same_length(folders=self.folders, mean=self.mean, scale=self.scale)
        return self


class WorldRewards(Strict):
    """The embedded world's true scores, for measurements only."""

    kind: Literal["world"] = "world"
    dimensions: list[str]
    mean: list[float]
    scale: list[float]

    @model_validator(mode="after")
    def _check(self) -> Self:
        _same_length(dimensions=self.dimensions, mean=self.mean, scale=self.scale)
        return self


RewardSource = ModelRewards | WorldRewards
"""Everything a training process needs, as one JSON file."""


def _same_length(**lists: list) -> None:
    lengths = {name: len(values) for name, values in lists.items()}
    if len(set(lengths.values())) > 1 or 0 in lengths.values():
        raise ValueError(f"one entry per dimension in each is needed, got {lengths}")


def open_judge(source: RewardSource) -> Judge:
    """A judge with its reward models in memory; it scores equal texts once per call.

    Nothing is remembered from call to call: a score's last bits depend on the batch it is in, and
    a training that was resumed has to see the bits of an uninterrupted one.
    """
    from panacea_lib.rewards.score import RewardModels, once_each

    scale = RewardScale(np.array(source.mean), np.array(source.scale))
    if isinstance(source, WorldRewards):

        def raw(prompts: list[str], responses: list[str]) -> np.ndarray:
            return gold_raw_texts(prompts, responses, source.dimensions)

    else:
        folders = [Path(folder) for folder in source.folders]
        base = Path(source.base_model)
        raw = RewardModels(base, source.quantization, folders, source.max_length).scores
    return lambda prompts, responses: scale.apply(once_each(raw, prompts, responses))
