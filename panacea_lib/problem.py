"""An alignment problem: base model + data + dimensions + methods, as one strict configuration.

A problem is a YAML file (`panacea_lib.problem_files` finds and reads it); this module says what
may stand in one. Unknown keys are refused, so that a typo never becomes a silent default.
"""

from typing import Annotated, Any, Self, get_args

from pydantic import Field, ValidationError, model_validator

from panacea_lib.problem_champion import ChampionGate
from panacea_lib.problem_columns import DemonstrationColumns, mapped_dimensions
from panacea_lib.problem_data import FileData, HubData, SeveralData, WorldData, parts_of
from panacea_lib.problem_inbox import Inbox, check_inbox
from panacea_lib.problem_labelling import (
    DataLabels,
    GeneratedPairs,
    Judge,
    JudgeLabels,
    LabelSource,
    source_name,
)
from panacea_lib.problem_launch import Launch
from panacea_lib.problem_models import PretrainedModel, ScratchModel
from panacea_lib.problem_retrain import Retrain
from panacea_lib.problem_training import (
    BASELINE_METHODS,
    BaselineMethod,
    Baselines,
    Method,
    PolicyTraining,
    RewardTraining,
    Rollouts,
)
from panacea_lib.problem_types import DimensionName, Name, Positive, Strict


class Dimension(Strict):
    """One axis of preference."""

    name: DimensionName
    description: str = ""


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
    data: Annotated[WorldData | FileData | HubData | SeveralData, Field(discriminator="kind")]
    inbox: Inbox | None = Field(
        default=None,
        description="how new files are read that are dropped into var/inbox/NAME/ of the "
        "workspace; default: none are taken",
    )
    pairs: GeneratedPairs | None = Field(
        default=None,
        description="generate the pairs; default: those of the data, or in the embedded world "
        "pairs of the base model's samples",
    )
    labels: dict[DimensionName, Annotated[list[LabelSource], Field(min_length=1)]] = Field(
        default={},
        description="per dimension: who labels the pairs, the most trusted first; a pair has the "
        "label of the first that knows one. Default: the labels that came with the data",
    )
    judges: dict[Name, Judge] = Field(default={}, description="what `kind: judge` may name")
    base_model: Annotated[ScratchModel | PretrainedModel, Field(discriminator="kind")]
    reference: Sampling = Sampling()
    rewards: RewardTraining = RewardTraining()
    training: PolicyTraining = PolicyTraining()
    baselines: Baselines = Baselines()
    evaluation: Evaluation = Evaluation()
    champion: ChampionGate = ChampionGate()
    launch: Launch = Launch()
    retrain: Retrain = Retrain()

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

    def label_sources(self, dimension: str) -> list[LabelSource]:
        """Who labels a dimension, the most trusted first."""
        return self.labels.get(dimension) or [DataLabels(kind="data")]

    @property
    def keeps_unlabelled(self) -> bool:
        """Whether pairs that came without labels are of use: others than the data label some."""
        return any(s.kind != "data" for n in self.dimension_names for s in self.label_sources(n))

    @property
    def data_dimensions(self) -> list[str]:
        """The dimensions that nothing but the data labels."""
        names = self.dimension_names
        return [n for n in names if all(s.kind == "data" for s in self.label_sources(n))]

    @property
    def demonstrated(self) -> list[str]:
        """The dimensions that the data has demonstrations for, for supervised fine-tuning."""
        if isinstance(self.data, WorldData):
            return []
        columns = (part.columns for part in parts_of(self.data))
        return [c.dimension for c in columns if isinstance(c, DemonstrationColumns)]

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
            known, what = set[str](), "data.columns maps"
            for i, part in enumerate(parts_of(self.data)):
                mapped = set(mapped_dimensions(part.columns))
                if extra := mapped - set(names):
                    where = f"parts.{i}." if isinstance(self.data, SeveralData) else ""
                    raise ValueError(
                        f"data.{where}columns: maps {sorted(extra)}, which dimensions does not "
                        "name; add them there or delete the mapping"
                    )
                known |= mapped
        # Whoever labels them, the embedded world's evaluation knows their true rewards.
        everything = isinstance(self.data, WorldData)
        asked = [
            name
            for name in names
            if everything or any(s.kind == "data" for s in self.label_sources(name))
        ]
        if unknown := [name for name in asked if name not in known]:
            raise ValueError(
                f"dimensions: unknown {unknown}; {what} {sorted(known)}; others need a "
                "source in labels"
            )
        return self

    @model_validator(mode="after")
    def _check_files(self) -> Self:
        names, in_world = self.dimension_names, isinstance(self.data, WorldData)
        if self.inbox is not None:
            check_inbox(self.inbox, names, self.demonstrated, in_world)
        for i, part in enumerate(self.data.files if isinstance(self.data, WorldData) else []):
            try:
                check_inbox(Inbox(columns=part.columns), names, [], in_world)
            except ValueError as error:
                said = str(error).removeprefix("inbox.")
                raise ValueError(f"data.files.{i}.{said}") from None
        return self

    @model_validator(mode="after")
    def _check_demonstrations(self) -> Self:
        methods = [self.training.method, *self.baselines.methods]
        bare = [name for name in self.dimension_names if name not in self.demonstrated]
        if self.demonstrated and bare and "sft" in methods:
            raise ValueError(
                f"data: no demonstrations of {bare}, which sft needs of every dimension where "
                "there are some; add parts with `layout: demonstrations`, or drop sft"
            )
        return self

    @model_validator(mode="after")
    def _check_pairs(self) -> Self:
        if self.pairs is None or isinstance(self.data, WorldData):
            return self
        for name in self.dimension_names:
            if any(source.kind == "data" for source in self.label_sources(name)):
                raise ValueError(
                    f"pairs: the data's labels of {name} are of the data's own pairs; name another "
                    f"source in labels.{name}, or delete pairs"
                )
        return self

    @model_validator(mode="after")
    def _check_labels(self) -> Self:
        for dimension, sources in self.labels.items():
            if dimension not in self.dimension_names:
                raise ValueError(
                    f"labels.{dimension}: dimensions does not name it; add it there or delete this"
                )
            names = [source_name(source) for source in sources]
            if double := next((name for name in names if names.count(name) > 1), None):
                raise ValueError(f"labels.{dimension}: {double!r} stands twice; delete one")
            for source in sources:
                if isinstance(source, JudgeLabels) and source.judge not in self.judges:
                    raise ValueError(
                        f"labels.{dimension}: no judge is named {source.judge!r} (judges has "
                        f"{sorted(self.judges)}); add it to judges or name another"
                    )
        return self

    @model_validator(mode="after")
    def _check_champion(self) -> Self:
        names = self.dimension_names
        if unknown := [name for name in self.champion.floors if name not in names]:
            raise ValueError(
                f"champion.floors: dimensions does not name {unknown} (it has {names}); name one "
                "of those or delete the floor"
            )
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
    def _check_launch(self) -> Self:
        rows, processes = self.training.batch_size, self.launch.processes
        if rows % processes:
            raise ValueError(
                f"launch.processes: {processes} processes cannot share the {rows} rows of "
                "training.batch_size equally; change one of them"
            )
        return self

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        limit = self.base_model.max_length
        sampled: dict[str, Sampling | Evaluation | Rollouts | GeneratedPairs] = {
            "reference": self.reference,
            **({"pairs": self.pairs} if self.pairs else {}),
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
