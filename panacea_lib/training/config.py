"""Everything a training process needs, as one JSON file."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from panacea_lib.problem_training import Method, PolicyTraining
from panacea_lib.problem_types import Quantization, Strict
from panacea_lib.rewards.judge import RewardSource

Conditioning = Literal["panacea", "lora", "prompt_lora"]


class TrainConfig(Strict):
    """One adapter: on what base, from what data, by what method, under which λ."""

    base_model: str
    quantization: Quantization = "none"
    dimensions: list[str]
    beta: float
    max_length: int
    method: Method
    adapter: Conditioning = Field(
        default="panacea",
        description="where λ acts: in the singular values, nowhere (`fixed_preference` then says "
        "which one is trained for), or as words before the prompt",
    )
    fixed_preference: list[float] | None = None  # (m,); what a `lora` is trained for
    training: PolicyTraining
    # A Parquet file with prompt, response_a, response_b, label (m) and reward_delta (m); for sft
    # also one with prompt, response and dimension: a data set per dimension, one below the other.
    pairs: str
    rewards: Annotated[RewardSource, Field(discriminator="kind")] | None = None  # rloo's judge
    seed: int = 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.adapter == "lora") != (self.fixed_preference is not None):
            raise ValueError("fixed_preference: a lora needs one, and nothing else takes one")
        if self.method == "rloo" and self.rewards is None:
            raise ValueError("rewards: rloo needs a judge of the answers that it samples")
        if self.adapter == "prompt_lora" and self.method not in ("dpo", "reward_distillation"):
            raise ValueError("adapter: prompt_lora is trained on pairs, by dpo or distillation")
        return self
