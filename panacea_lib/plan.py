"""Content keys: what each stage of a problem would make, told before anything is made.

A key is the hash of all that a product follows from: the stage's version, its section of the
configuration, the seed, the libraries that matter and the keys of its inputs; never a path, a time
or a run. Equal keys mean equal products, so what is there under a key need not be made again.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from panacea_lib.data import source_fingerprint
from panacea_lib.labelling.fingerprint import label_fingerprint, model_fingerprint
from panacea_lib.problem import Problem
from panacea_lib.problem_data import HubData, SeveralData, WorldData, part_name, parts_of
from panacea_lib.problem_files import is_local
from panacea_lib.problem_labelling import (
    DataLabels,
    JudgeLabels,
    LabelSource,
    ModelLabels,
    counts_tokens,
    source_name,
)
from panacea_lib.problem_models import PretrainedModel, ScratchModel
from panacea_lib.problem_training import BASELINE_METHODS, PER_PREFERENCE

STAGE_VERSIONS = {
    "prompts": 1,
    "base_model": 2,
    "responses": 1,
    "pairs": 1,
    "annotations": 1,
    "preference_labels": 2,
    "reward_models": 2,
    "response_rewards": 1,
    "panacea_policy": 2,
    "baseline_policies": 2,
    "generations": 2,
    "pareto_front": 2,
    "report": 2,
}
"""All stages, in the order of the chain. Raise a number by hand when the stage's code begins to
make something else of the same inputs: its products, and all that follow from them, are remade."""

_TEXT_LIBRARIES = ("torch", "transformers", "tokenizers")
_TUNING_LIBRARIES = (*_TEXT_LIBRARIES, "peft", "trl")
_LIBRARIES = {
    "base_model": _TEXT_LIBRARIES,
    "responses": _TEXT_LIBRARIES,
    "reward_models": _TUNING_LIBRARIES,
    "response_rewards": _TUNING_LIBRARIES,
    "panacea_policy": _TUNING_LIBRARIES,
    "baseline_policies": _TUNING_LIBRARIES,
    "generations": _TUNING_LIBRARIES,
    "pareto_front": ("numpy", "moocore"),
}
# Numbers of a training that only some methods read.
_NUMBERS_OF = {
    "distillation_loss": ("reward_distillation",),
    "tail_penalty": ("reward_distillation",),
    "rollouts": ("rloo",),
    "scalarization": ("dpo", "sft"),
}
SHARED_TRUNK = "all"
"""The part of `reward_models` that scores every dimension."""

# Where a data section's data lies; what lies there is in the fingerprint.
_PLACES = {"path", "dataset", "revision", "subset", "data_dir", "hub_split"}


@cache
def library_versions() -> dict[str, str]:
    """Installed versions of the libraries that some stage's product depends on."""
    names = {name for names in _LIBRARIES.values() for name in names} | {"bitsandbytes"}
    # "2.13.0+cpu" is another build of "2.13.0", not another version.
    return {name: version(name).split("+")[0] for name in sorted(names)}


@dataclass(frozen=True)
class Plan:
    """The keys of one problem under one seed and one cap on training steps."""

    problem: Problem
    seed: int
    max_steps: int | None
    data_fingerprint: str
    model_fingerprint: str
    versions: Mapping[str, str]
    label_fingerprints: Mapping[str, Any] = field(default_factory=dict)
    reward_fingerprint: str = ""
    _keys: dict[tuple[str, str], str] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(
        cls,
        problem: Problem,
        problem_file: Path,
        seed: int | None = None,
        max_steps: int | None = None,
    ) -> Self:
        """The plan with the data that is there now; `seed` None means the problem's own.

        InputError where the data or a local model is missing (see `source_fingerprint`).
        """
        return cls(
            problem=problem,
            seed=problem.seed if seed is None else seed,
            max_steps=max_steps,
            data_fingerprint=source_fingerprint(problem, problem_file),
            model_fingerprint=_model_fingerprint(problem.base_model, problem_file),
            versions=library_versions(),
            label_fingerprints={
                part: label_fingerprint(problem, problem_file, dimension, source)
                for part, (dimension, source) in label_parts(problem).items()
            },
            reward_fingerprint=_model_fingerprint(problem.rewards.model, problem_file),
        )

    @property
    def methods(self) -> list[str]:
        """Everything that answers in the evaluation: the reference and all trained policies."""
        return ["reference", "panacea", *self.parts("baseline_policies")]

    def parts(self, stage: str) -> list[str]:
        """The pieces of a stage that are made and kept one by one; [""] for one piece."""
        match stage:
            case "annotations":
                return list(self.label_parts)
            case "reward_models" if self.problem.rewards.trunk == "shared":
                return [SHARED_TRUNK]
            case "reward_models" | "response_rewards":
                return self.problem.dimension_names
            case "panacea_policy":
                return ["panacea"]
            case "baseline_policies":
                named = dict.fromkeys(self.problem.baselines.methods)
                return [BASELINE_METHODS[name] for name in named]
            case "generations":
                return self.methods
        return [""]

    def steps(self, configured: int) -> int:
        """Optimiser steps of a policy or a reward model under `max_steps`."""
        return configured if self.max_steps is None else min(configured, self.max_steps)

    def keys(self, stage: str) -> dict[str, str]:
        """Part → key."""
        return {part: self.key(stage, part) for part in self.parts(stage)}

    def key(self, stage: str, part: str = "") -> str:
        """32 hexadecimal digits. ValueError for a stage or a part that the problem has not."""
        if stage not in STAGE_VERSIONS or part not in self.parts(stage):
            raise ValueError(f"problem {self.problem.name} has no stage {stage!r}, part {part!r}")
        if (stage, part) not in self._keys:
            self._keys[stage, part] = self._digest(stage, part=part, **self._content(stage, part))
        return self._keys[stage, part]

    def _digest(self, stage: str, **content: Any) -> str:
        libraries = [*_LIBRARIES.get(stage, ())]
        loaded = self.problem.base_model
        if stage in ("reward_models", "response_rewards"):
            loaded = self.problem.rewards.model or loaded
        if libraries and stage != "base_model" and loaded.quantization != "none":
            libraries.append("bitsandbytes")
        whole = {
            "stage": stage,
            "version": STAGE_VERSIONS[stage],
            "seed": self.seed,
            "libraries": {name: self.versions[name] for name in libraries},
            **content,
        }
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:32]

    def _content(self, stage: str, part: str) -> dict[str, Any]:
        """What a product follows from, apart from its stage's version, libraries and the seed."""
        p = self.problem
        names = p.dimension_names
        match stage:
            case "prompts":
                dimensions = [d.model_dump(mode="json") for d in p.dimensions]
                return {"data": self._data(), "dimensions": dimensions}
            case "base_model":
                return self._base_content()
            case "responses":
                content = {
                    "data": self._data(),
                    "base": self._loaded_base(),
                    "reference": p.reference.model_dump(mode="json"),
                }
                if p.pairs is not None:
                    content["generated"] = p.pairs.model_dump(mode="json", exclude={"count"})
                    content["dimensions"] = len(names)  # the λ that answers are drawn under
                return content
            case "pairs":
                if p.pairs is not None:
                    return {"responses": self.key("responses"), "count": p.pairs.count}
                if isinstance(p.data, WorldData):
                    return {"responses": self.key("responses"), "count": p.data.pairs}
                return {"data": self._data()}
            case "annotations":
                return self._annotations_content(part)
            case "preference_labels":
                return {"labels": {name: self._labels(name) for name in names}}
            case "reward_models":
                return self._reward_content(part)
            case "response_rewards":
                models = self.key("reward_models", self.reward_model_of(part))
                content = {"reward_model": models, "responses": self.key("responses")}
                return content | ({"dimension": part} if p.rewards.trunk == "shared" else {})
            case "panacea_policy" | "baseline_policies":
                return self._policy_content(part)
            case "generations":
                return self._generations_content(part)
            case "pareto_front":
                return {
                    "generations": self.keys("generations"),
                    "base": self._loaded_base(),
                    "rewards": self.keys("response_rewards"),
                    "labels": self.key("preference_labels"),
                    "beta": p.beta,
                    "evaluation": p.evaluation.model_dump(mode="json"),
                }
            case "report":
                return {
                    "problem": p.model_dump(mode="json", include={"name", "description", "owner"}),
                    "keys": {s: self.keys(s) for s in STAGE_VERSIONS if s != "report"},
                }
        raise AssertionError(stage)

    def reward_model_of(self, dimension: str) -> str:
        """The part of `reward_models` that scores a dimension."""
        return SHARED_TRUNK if self.problem.rewards.trunk == "shared" else dimension

    def _reward_content(self, part: str) -> dict[str, Any]:
        rewards, names = self.problem.rewards, self.problem.dimension_names
        config = rewards.model_dump(mode="json", exclude={"checkpoint_every", "model"})
        base: Any = self._loaded_base()
        if rewards.model is not None:
            apart = {"model", "revision", "license"}
            numbers = rewards.model.model_dump(mode="json", exclude=apart)
            base = {"is": self.reward_fingerprint, "as": numbers}
        content = {"base": base, "rewards": config | {"steps": self.steps(rewards.steps)}}
        if rewards.trunk == "separate":
            return content | {"labels": self._labels(part)}
        # The order of the dimensions is the order of the heads.
        return content | {"labels": [[name, self._labels(name)] for name in names]}

    def _policy_content(self, method: str) -> dict[str, Any]:
        p = self.problem
        numbers = p.training_of(method)
        # Neither when it is saved on the way nor another method's numbers change an adapter.
        others = {name for name, methods in _NUMBERS_OF.items() if numbers.method not in methods}
        config = numbers.model_dump(mode="json", exclude={"checkpoint_every", *others})
        content = {
            "base": self._loaded_base(),
            "labels": {name: self._labels(name) for name in p.dimension_names},
            "dimensions": p.dimension_names,  # their order is the order of λ
            "method": method,
            "beta": p.beta,
            "training": config | {"steps": self.steps(p.training.steps)},
        }
        if method in PER_PREFERENCE:
            content["preferences"] = p.lora_preferences
        if needs_rewards(p, method):
            content["rewards"] = self.keys("response_rewards")
        return content

    def _generations_content(self, method: str) -> dict[str, Any]:
        p = self.problem
        policy = {} if method == "reference" else {"policy": self.key(policy_stage(method), method)}
        return {
            "data": self._data(),
            "base": self._loaded_base(),
            **policy,
            "dimensions": p.dimension_names,
            "judges": self.keys("response_rewards"),  # the reward models and their scale
            "labels": self.key("preference_labels"),  # the gold scale
            "evaluation": p.evaluation.model_dump(mode="json", exclude={"bootstrap"}),
        }

    def _data(self) -> dict[str, Any]:
        """What the prompts (of a file also pairs and labels) follow from, but for dimensions."""
        data = self.problem.data
        content = {"version": STAGE_VERSIONS["prompts"], "is": self.data_fingerprint}
        if isinstance(data, WorldData):
            apart = {"license", "pairs", "annotators"}
            return {**content, "as": data.model_dump(mode="json", exclude=apart)}
        apart = {"license", *_PLACES}
        config = data.model_dump(mode="json", exclude=apart)
        if isinstance(data, SeveralData):
            apart.add("split")  # the whole data's counts
            config["parts"] = [part.model_dump(mode="json", exclude=apart) for part in data.parts]
            # A part's name stands in its annotations, also where it is the file's.
            config["names"] = [part_name(part) for part in data.parts]
        return {**content, "as": config, "unlabelled": self.problem.keeps_unlabelled}

    def _base_content(self) -> dict[str, Any]:
        base = self.problem.base_model
        apart = {"quantization", "model", "revision", "license"}
        config = base.model_dump(mode="json", exclude=apart)
        content = {"base_model": config, "is": self.model_fingerprint}
        if not isinstance(base, PretrainedModel):
            content["data"] = self._data()
        return content

    def _loaded_base(self) -> list[str]:
        """The base model as stages load it: quantised, from one artifact for all quantisations."""
        return [self.key("base_model"), self.problem.base_model.quantization]

    @property
    def label_parts(self) -> dict[str, tuple[str, LabelSource]]:
        """The parts of `annotations`: dimension and source, a dimension's most trusted first."""
        return label_parts(self.problem)

    def more_trusted(self, part: str) -> list[str]:
        """The parts of the same dimension that come before this one."""
        dimension = self.label_parts[part][0]
        same = [name for name, (other, _) in self.label_parts.items() if other == dimension]
        return same[: same.index(part)]

    def _annotations_content(self, part: str) -> dict[str, Any]:
        dimension, source = self.label_parts[part]
        data = self.problem.data
        content = {
            "pairs": self.key("pairs"),
            "dimension": dimension,
            "source": source.model_dump(mode="json"),
            "is": self.label_fingerprints.get(part),
        }
        if isinstance(source, DataLabels) and isinstance(data, WorldData):
            content["annotators"] = data.annotators
        if counts_tokens(source):
            content["tokenizer"] = self.key("base_model")
        if isinstance(source, JudgeLabels):  # it labels what they have not
            content["after"] = [self.key("annotations", name) for name in self.more_trusted(part)]
        return content

    def _labels(self, dimension: str) -> list[str]:
        """The labels of one dimension, which do not depend on the others."""
        return [
            self.key("annotations", part)
            for part, (name, _) in self.label_parts.items()
            if name == dimension
        ]


def label_parts(problem: Problem) -> dict[str, tuple[str, LabelSource]]:
    """Every dimension and source of labels, by the name of its part of `annotations`."""
    return {
        f"{dimension} by {source_name(source)}": (dimension, source)
        for dimension in problem.dimension_names
        for source in problem.label_sources(dimension)
    }


def policy_stage(method: str) -> str:
    """The stage that trains a method; the reference policy has none."""
    return "panacea_policy" if method == "panacea" else "baseline_policies"


def needs_rewards(problem: Problem, method: str) -> bool:
    """Whether a policy's training looks at rewards, not only at labels."""
    return problem.training_of(method).method in ("reward_distillation", "rloo")


def is_offline(problem: Problem) -> bool:
    """Whether nothing of the problem comes from the hub."""
    base, data = problem.base_model, problem.data
    models = (base, problem.rewards.model)
    hub_model = any(isinstance(m, PretrainedModel) and not is_local(m.model) for m in models)
    parts = [] if isinstance(data, WorldData) else parts_of(data)
    hub_data = any(isinstance(part, HubData) and not is_local(part.dataset) for part in parts)
    sources = [source for _, source in label_parts(problem).values()]
    hub_labels = any(isinstance(s, ModelLabels) and not is_local(s.model) for s in sources)
    return not hub_model and not hub_data and not hub_labels


def _model_fingerprint(base: ScratchModel | PretrainedModel | None, problem_file: Path) -> str:
    """What a pretrained model is: the files of a local directory, or a hub id and a revision."""
    if not isinstance(base, PretrainedModel):
        return "scratch"
    return model_fingerprint(base.model, base.revision, problem_file)
