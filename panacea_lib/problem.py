"""An alignment problem: base model + data + dimensions + methods, as one strict configuration.

A problem is a YAML file (`panacea_lib.problem_files` finds and reads it); this module says what
may stand in one. Unknown keys are refused, so that a typo never becomes a silent default.
"""

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Discriminator, Field, Tag, ValidationError, model_validator

from panacea_lib.problem_training import (
    BASELINE_METHODS,
    BaselineMethod,
    Baselines,
    Method,
    PolicyTraining,
    RewardTraining,
    Rollouts,
)
from panacea_lib.problem_types import (
    DimensionName,
    License,
    Name,
    Positive,
    Quantization,
    Rate,
    Strict,
)


class Dimension(Strict):
    """One axis of preference."""

    name: DimensionName
    description: str = ""


class Split(Strict):
    """Shares of the prompts; a prompt's side is a hash of its text, so none is on two sides."""

    validation: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    test: Annotated[float, Field(gt=0, lt=0.5)] = 0.1


class WorldData(Strict):
    """The embedded world (`panacea_lib.world`): prompts, answers and annotators, by seed."""

    kind: Literal["world"]
    license: License | None = None
    prompts: Annotated[int, Field(ge=20, description="distinct prompts, all splits together")] = 600
    pairs: Annotated[int, Field(ge=20, description="labelled pairs, train and validation")] = 6000
    annotators: Annotated[int, Field(gt=0, description="votes per pair and dimension")] = 3
    split: Split = Split()


class ScorePair(Strict):
    """Two columns that hold the scores of response a and of response b."""

    a: str
    b: str


class Preferred(Strict):
    """One column that holds P(a preferred over b) in [0, 1], or one of "a", "b", "tie"."""

    preferred: str


def _label_kind(value: Any) -> str:
    """Which of the three forms a label has, so that an error speaks of that one only."""
    if isinstance(value, Preferred) or (isinstance(value, dict) and "preferred" in value):
        return "{preferred:}"
    return "{a:, b:}" if isinstance(value, dict | ScorePair) else "column"


LabelColumn = Annotated[
    Annotated[str, Tag("column")]
    | Annotated[ScorePair, Tag("{a:, b:}")]
    | Annotated[Preferred, Tag("{preferred:}")],
    Discriminator(_label_kind),
]


class PairColumns(Strict):
    """A row is a pair of responses. Column names may be dotted paths into nested fields."""

    layout: Literal["pairs"]
    id: str | None = None
    prompt: str = "prompt"
    response_a: str = "response_a"
    response_b: str = "response_b"
    labels: dict[DimensionName, LabelColumn] = Field(
        description="per dimension: a column holding [score of a, score of b], or {a:, b:}, "
        "or {preferred:}"
    )


class ResponseColumns(Strict):
    """A row is one graded response; consecutive responses to one prompt become pairs."""

    layout: Literal["responses"]
    prompt: str = "prompt"
    response: str = "response"
    scores: dict[DimensionName, str] = Field(description="per dimension: the column of its score")


Columns = Annotated[PairColumns | ResponseColumns, Field(discriminator="layout")]


class FileData(Strict):
    """A local file: JSONL, JSONL.gz, CSV or Parquet, told by its ending."""

    kind: Literal["file"]
    license: License | None = None
    path: str = Field(description="relative to the problem's file; may name ${VARIABLES}")
    columns: Columns
    limit: Positive | None = None
    split: Split = Split()


class HubData(Strict):
    """A data set on the Hugging Face hub."""

    kind: Literal["hub"]
    license: License | None = None
    dataset: str = Field(
        description="hub id, or a directory of data files if it begins with /, ., ~ or ${VARIABLE}"
    )
    revision: str = Field("main", description="pin a commit: a branch's content may change")
    subset: str | None = None
    hub_split: str = "train"
    columns: Columns
    limit: Positive | None = None
    split: Split = Split()


class ScratchModel(Strict):
    """A small Llama trained from scratch on the problem's own text: no download, no GPU."""

    kind: Literal["scratch"]
    license: License | None = None
    tokenizer: Literal["words", "bpe"] = "words"
    vocab_size: Positive = 1024
    hidden_size: Positive = 64
    layers: Positive = 2
    heads: Positive = 4
    steps: Positive = 800
    batch_size: Positive = 64
    learning_rate: Rate = 1e-2
    temperature: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0, description="below 1 sharpens the finished model, as samples at it would be"
    )
    max_length: Positive = 64
    quantization: Quantization = "none"

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        if self.hidden_size % (2 * self.heads):
            raise ValueError(
                f"hidden_size: must be a multiple of 2 · heads = {2 * self.heads} (rotary "
                f"positions turn pairs of numbers), not {self.hidden_size}"
            )
        if self.quantization == "nf4" and self.hidden_size % 32:
            raise ValueError(
                "hidden_size: must be a multiple of 32 to be quantised to nf4, "
                f"not {self.hidden_size}"
            )
        return self


class PretrainedModel(Strict):
    """A causal language model from the hub or a local directory."""

    kind: Literal["pretrained"]
    license: License | None = None
    model: str = Field(
        description="hub id, or a directory if it begins with /, ., ~ or ${VARIABLE}"
    )
    revision: str = "main"
    max_length: Positive = 1024
    quantization: Quantization = "nf4"


class Sampling(Strict):
    """Samples of the base model at temperature 1; as reference they fix the rewards' scale."""

    prompts: Positive = 200
    per_prompt: Annotated[int, Field(ge=2)] = 8
    max_new_tokens: Positive = 40
    batch_size: Positive = 512


class Evaluation(Strict):
    """Held-out prompts, a fixed grid of λ, samples at temperature 1."""

    prompts: Positive = 64
    samples: Positive = 8
    max_new_tokens: Positive = 40
    batch_size: Positive = 704
    bootstrap: Annotated[int, Field(ge=100)] = 1000


class Problem(Strict):
    """Everything a run needs to know; the keys of all products follow from it and the data."""

    name: Name
    description: str = ""
    owner: str = "team:alignment"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    beta: Annotated[float, Field(gt=0, description="the KL price, in normalised reward")] = 0.5
    dimensions: Annotated[list[Dimension], Field(min_length=2, max_length=10)]
    data: Annotated[WorldData | FileData | HubData, Field(discriminator="kind")]
    base_model: Annotated[ScratchModel | PretrainedModel, Field(discriminator="kind")]
    reference: Sampling = Sampling()
    rewards: RewardTraining = RewardTraining()
    training: PolicyTraining = PolicyTraining()
    baselines: Baselines = Baselines()
    evaluation: Evaluation = Evaluation()

    def training_of(self, method: str) -> PolicyTraining:
        """The numbers that a method (by its name in tables) is trained with."""
        if method == "panacea":
            return self.training
        name = next(name for name, told in BASELINE_METHODS.items() if told == method)
        own: dict[str, Any] = {}
        if name in self.baselines.learning_rates:
            own["learning_rate"] = self.baselines.learning_rates[name]
        own["method"] = self._method_of(name)
        return PolicyTraining(**dict(self.training) | own)

    def _method_of(self, baseline: str) -> str:
        """What a baseline is trained with; an oracle by the problem's own method, if LoRAs can."""
        if baseline in get_args(Method):
            return baseline
        objectives = get_args(Baselines.model_fields["objective"].annotation)
        if baseline == "oracle" and self.training.method in objectives:
            return self.training.method
        return self.baselines.objective

    @property
    def lora_preferences(self) -> list[list[float]]:
        """The λ that `lora_per_preference` and `oracle` have a LoRA for."""
        if self.baselines.preferences is not None:
            return self.baselines.preferences
        m = len(self.dimensions)
        if m == 2:
            return [[i / 4, 1 - i / 4] for i in range(5)]
        vertices = [[float(i == j) for j in range(m)] for i in range(m)]
        return [*vertices, [1 / m] * m]

    @property
    def dimension_names(self) -> list[str]:
        """The m names, in the order of λ's entries."""
        return [dimension.name for dimension in self.dimensions]

    @model_validator(mode="after")
    def _check_dimensions(self) -> Self:
        names = self.dimension_names
        if len(set(names)) != len(names):
            raise ValueError(f"dimensions: names must differ, got {names}")
        if isinstance(self.data, WorldData):
            # Imported here: the world is a leaf that configuration otherwise needs nothing of.
            from panacea_lib.world.gold import GOLD_DIMENSIONS

            known, what = set(GOLD_DIMENSIONS), "the embedded world knows"
        else:
            columns = self.data.columns
            mapped = columns.labels if isinstance(columns, PairColumns) else columns.scores
            known, what = set(mapped), "data.columns maps"
            if extra := known - set(names):
                raise ValueError(
                    f"data.columns maps {sorted(extra)}, which dimensions does not name: "
                    "add them there or delete the mapping"
                )
        if unknown := [name for name in names if name not in known]:
            raise ValueError(f"dimensions: unknown {unknown}; {what} {sorted(known)}")
        return self

    @model_validator(mode="after")
    def _check_baselines(self) -> Self:
        m = len(self.dimensions)
        for weights in self.baselines.preferences or []:
            if len(weights) != m or min(weights) < 0 or abs(sum(weights) - 1) > 1e-4:
                raise ValueError(
                    f"baselines.preferences: each needs {m} weights that are not negative and sum "
                    f"to 1, one for each dimension, not {weights}"
                )
        for name in self.baselines.methods:
            self._check_training_of(name)
        return self

    def _check_training_of(self, name: BaselineMethod) -> None:
        """ValueError where training's numbers do not fit a baseline's own method."""
        try:
            self.training_of(BASELINE_METHODS[name])
        except ValidationError as error:
            said = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise ValueError(
                f"baselines.methods: {name} shares training's numbers: {said}"
            ) from None

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        limit = self.base_model.max_length
        sampled: dict[str, Sampling | Evaluation | Rollouts] = {
            "reference": self.reference,
            "evaluation": self.evaluation,
        }
        if "rloo" in (self.training.method, *self.baselines.methods):
            sampled["training.rollouts"] = self.training.rollouts
        for key, sampling in sampled.items():
            if sampling.max_new_tokens >= limit:
                raise ValueError(
                    f"{key}.max_new_tokens: must be below base_model.max_length = {limit}, "
                    f"so that a prompt has room, not {sampling.max_new_tokens}"
                )
        return self
