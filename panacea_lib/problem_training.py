"""A problem's section on training: reward models, the policy, and what it is compared with."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from panacea_lib.problem_models import PretrainedModel
from panacea_lib.problem_types import Positive, Rate, Strict

Method = Literal["reward_distillation", "dpo", "sft", "rloo"]


class RewardTraining(Strict):
    """A score for each dimension, learned by Bradley-Terry through TRL's RewardTrainer."""

    trunk: Literal["separate", "shared"] = Field(
        default="separate",
        description="a model for each dimension, or one with a head for each, which trains and "
        "scores all dimensions in one forward",
    )
    trained: Literal["lora", "head"] = Field(
        default="lora",
        description="LoRA on all linear layers and the score head, or that head alone on a frozen "
        "trunk",
    )
    model: PretrainedModel | None = Field(
        default=None, description="what they are made of; default: the problem's base model"
    )
    margin: Annotated[
        float,
        Field(
            ge=0,
            description="logits by which a pair whose graded scores differ as much as the "
            "dimension's usually do is to be kept apart; 0 looks at labels only",
        ),
    ] = 0.0
    steps: Positive = 200
    batch_size: Positive = 64
    learning_rate: Rate = 3e-3
    rank: Positive = 16
    checkpoint_every: Positive = 500


class PreferenceSampling(Strict):
    """How λ is drawn in training: Dirichlet(concentration), with a share of vertices."""

    concentration: Annotated[float, Field(gt=0)] = 1.0
    vertex_probability: Annotated[float, Field(ge=0, le=1)] = 0.1
    per: Literal["row", "batch"] = "row"
    stratified: bool = Field(
        default=False, description="dimensions take turns, step by step, at having the largest λᵢ"
    )


class Scalarization(Strict):
    """How m losses become one (arXiv 2402.02030, section 4.2): Σ λᵢ·lossᵢ, max λᵢ·(lossᵢ − zᵢ), or
    its log-sum-exp."""

    kind: Literal["linear", "tchebycheff", "smooth_tchebycheff"] = "linear"
    temperature: Annotated[float, Field(gt=0, description="μ of smooth_tchebycheff")] = 0.1
    ideal: list[float] | None = Field(
        default=None, description="z of Tchebycheff, one loss per dimension; default 0"
    )


class Rollouts(Strict):
    """The answers that RLOO samples while it trains; a group shares its prompt and its λ."""

    group: Annotated[int, Field(ge=2, description="answers per prompt")] = 8
    max_new_tokens: Positive = 40


# Numbers of a training that only some methods read.
_NUMBERS_OF: dict[str, tuple[Method, ...]] = {
    "distillation_loss": ("reward_distillation",),
    "tail_penalty": ("reward_distillation",),
    "rollouts": ("rloo",),
    "scalarization": ("dpo", "sft"),
}


class PolicyTraining(Strict):
    """Panacea fine-tuning; the baselines share its numbers."""

    method: Method = "reward_distillation"
    distillation_loss: Literal["squared", "logistic"] = "squared"
    tail_penalty: Annotated[
        float,
        Field(
            ge=0,
            description="distillation's price of raising tokens that the base model gives less "
            "than 0.1 %, which its answers do not show; 0 spares a forward of the base model and "
            "the logits of the whole vocabulary",
        ),
    ] = 0.0
    scalarization: Scalarization = Scalarization()
    rollouts: Rollouts = Rollouts()
    steps: Positive = 400
    batch_size: Positive = 64
    accumulation: Positive = 1
    learning_rate: Rate = 3e-3
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    rank: Annotated[int, Field(gt=0, description="k, the learned singular values")] = 8
    alpha: Annotated[float, Field(gt=0)] = 16.0
    preferences: PreferenceSampling = PreferenceSampling()
    checkpoint_every: Positive = 200
    gradient_checkpointing: bool = False

    @property
    def of_other_methods(self) -> set[str]:
        """The fields that this method does not read."""
        return {name for name, methods in _NUMBERS_OF.items() if self.method not in methods}

    @model_validator(mode="after")
    def _check_scalarization(self) -> Self:
        kind = self.scalarization.kind
        if kind == "linear":
            return self
        if self.method in ("reward_distillation", "rloo"):
            raise ValueError(
                f"scalarization.kind: {kind} is for dpo and sft; {self.method} optimises Σ λᵢ·rᵢ, "
                "which is linear"
            )
        if self.preferences.per != "batch":
            raise ValueError(
                f"preferences.per: must be batch with {kind}, which compares the losses of a "
                "batch under one λ"
            )
        return self

    @model_validator(mode="after")
    def _check_rollouts(self) -> Self:
        if self.method == "rloo" and self.batch_size * self.accumulation % self.rollouts.group:
            raise ValueError(
                f"rollouts.group: must divide batch_size · accumulation = "
                f"{self.batch_size * self.accumulation}, the answers of one step, not "
                f"{self.rollouts.group}"
            )
        return self


BaselineMethod = Literal[
    "dpo",
    "sft",
    "rloo",
    "rewarded_soups",
    "mod",
    "lora_per_preference",
    "prompt_conditioned",
    "oracle",
]
BASELINE_METHODS: dict[BaselineMethod, str] = {
    "dpo": "panacea_dpo",
    "sft": "panacea_sft",
    "rloo": "panacea_rloo",
    "rewarded_soups": "rewarded_soups",
    "mod": "mod",
    "lora_per_preference": "lora_per_preference",
    "prompt_conditioned": "prompt_conditioned",
    "oracle": "oracle",
}
"""What `baselines` names → the method's name in tables, keys and `open_policy`."""


PER_PREFERENCE = ("lora_per_preference", "oracle")
"""Methods that have a LoRA per λ of a small set."""


class Baselines(Strict):
    """What a user would pick instead, trained and evaluated by the same code.

    dpo, sft and rloo train the Panacea adapter by another method than the problem's own; the others
    are plain LoRAs. Each has training's number of steps in all, shared out among its adapters; only
    `oracle` has them for each: a LoRA per λ by the problem's own method, to see what one can reach.
    """

    methods: list[BaselineMethod] = Field(default=["dpo", "rewarded_soups"])
    objective: Literal["dpo", "reward_distillation"] = Field(
        default="dpo", description="what the plain LoRAs are trained with; published: dpo"
    )
    preferences: list[list[float]] | None = Field(
        default=None,
        description="the λ of lora_per_preference and oracle, one weight per dimension each; "
        "default: five evenly spaced for two dimensions, for more the vertices and the centre",
    )
    learning_rates: dict[BaselineMethod, Rate] = Field(
        default={}, description="of those that learn best at another rate than training's"
    )
