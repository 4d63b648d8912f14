"""Everything a training process needs, as one JSON file."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from panacea_lib.errors import InputError
from panacea_lib.problem_training import PolicyTraining
from panacea_lib.problem_types import Positive, Quantization, Strict
from panacea_lib.rewards.judge import RewardSource

Conditioning = Literal["panacea", "lora", "prompt_lora"]


class TrainConfig(Strict):
    """One adapter: on what base, from what data, by what method, under which λ."""

    base_model: str = Field(description="a folder, or a hub id")
    quantization: Quantization = "none"
    dimensions: Annotated[list[str], Field(min_length=2, max_length=10)]
    beta: Annotated[float, Field(gt=0, description="the KL price")] = 0.5
    max_length: Positive = 1024
    adapter: Conditioning = Field(
        default="panacea",
        description="where λ acts: in the singular values, nowhere (`fixed_preference` then says "
        "which one is trained for), or as words before the prompt",
    )
    fixed_preference: list[float] | None = Field(
        default=None, description="(m,); what a `lora` is trained for"
    )
    target_modules: list[str] | str | None = Field(
        default=None,
        description="the linear layers to adapt, as PEFT reads it: names, a regular expression or "
        "all-linear; default: all but the output's",
    )
    training: PolicyTraining = PolicyTraining()
    pairs: str = Field(
        description="a Parquet file with prompt, response_a, response_b, and a list of m numbers "
        "in each row of label (P(a preferred); NaN is unknown) and, for distillation, of "
        "reward_delta; for sft also one with prompt, response and dimension: a data set per "
        "dimension, one below the other"
    )
    rewards: Annotated[RewardSource, Field(discriminator="kind")] | None = Field(
        default=None, description="who judges the answers that rloo samples"
    )
    seed: Annotated[int, Field(ge=0)] = 0

    @property
    def method(self) -> str:
        """The training method."""
        return self.training.method

    @property
    def tail_penalty(self) -> float:
        """What is in force: 0 for other methods, and where λ's words would reach the reference."""
        if self.method != "reward_distillation" or self.adapter == "prompt_lora":
            return 0.0
        return self.training.tail_penalty

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.adapter == "lora") != (self.fixed_preference is not None):
            raise ValueError("fixed_preference: a lora needs one, and nothing else takes one")
        fixed, m = self.fixed_preference, len(self.dimensions)
        if fixed is not None and (len(fixed) != m or min(fixed) < 0 or abs(sum(fixed) - 1) > 1e-4):
            raise ValueError(
                f"fixed_preference: needs a weight for each of {self.dimensions}, none of them "
                f"negative, that sum to 1; got {fixed}"
            )
        if self.method == "rloo" and self.rewards is None:
            raise ValueError("rewards: rloo needs a judge of the answers that it samples")
        if self.adapter == "prompt_lora" and self.method not in ("dpo", "reward_distillation"):
            raise ValueError("adapter: prompt_lora is trained on pairs, by dpo or distillation")
        return self


def read_config(file: Path) -> TrainConfig:
    """The configuration in a JSON file; InputError, naming file and field, where it is none."""
    if not file.is_file():
        raise InputError(f"{file}: there is no such file")
    try:
        return TrainConfig.model_validate_json(file.read_text(encoding="utf-8"))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "configuration"
        told = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{file}: {place}: {told}") from error
