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

from panacea_lib.data import files_fingerprint, source_fingerprint
from panacea_lib.labelling.fingerprint import label_fingerprint, model_fingerprint
from panacea_lib.plan_content import STAGE_VERSIONS, answers_content, content_of
from panacea_lib.problem import Problem
from panacea_lib.problem_data import HubData, WorldData, parts_of
from panacea_lib.problem_files import is_local
from panacea_lib.problem_labelling import (
    LabelSource,
    ModelLabels,
    source_name,
)
from panacea_lib.problem_models import PretrainedModel, ScratchModel
from panacea_lib.problem_training import BASELINE_METHODS

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
    "champion": ("numpy", "moocore"),
}
SHARED_TRUNK = "all"
"""The part of `reward_models` that scores every dimension."""


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
    files_fingerprint: str = ""
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
            files_fingerprint=files_fingerprint(problem, problem_file),
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
            self._keys[stage, part] = key_of(self.content(stage, part))
        return self._keys[stage, part]

    def content(self, stage: str, part: str = "") -> dict[str, Any]:
        """All that a product follows from, whose hash is its key; anything in it is JSON."""
        return self._content(stage, part, content_of(self, stage, part))

    def answers_content(self, policy_key: str) -> dict[str, Any]:
        """What a Panacea policy's answers follow from, to what this plan's policies are asked.

        Of the policy that this plan trains, the content of its part of `generations`; of an earlier
        one on the same base model, what that part's would be: equal contents, equal answers.
        """
        return self._content("generations", "panacea", answers_content(self, policy_key))

    def _content(self, stage: str, part: str, own: dict[str, Any]) -> dict[str, Any]:
        libraries = [*_LIBRARIES.get(stage, ())]
        loaded = self.problem.base_model
        if stage in ("reward_models", "response_rewards"):
            loaded = self.problem.rewards.model or loaded
        if libraries and stage != "base_model" and loaded.quantization != "none":
            libraries.append("bitsandbytes")
        return {
            "stage": stage,
            "part": part,
            "version": STAGE_VERSIONS[stage],
            "seed": self.seed,
            "libraries": {name: self.versions[name] for name in libraries},
            **own,
        }

    def reward_model_of(self, dimension: str) -> str:
        """The part of `reward_models` that scores a dimension."""
        return SHARED_TRUNK if self.problem.rewards.trunk == "shared" else dimension

    @property
    def label_parts(self) -> dict[str, tuple[str, LabelSource]]:
        """The parts of `annotations`: dimension and source, a dimension's most trusted first."""
        return label_parts(self.problem)

    def more_trusted(self, part: str) -> list[str]:
        """The parts of the same dimension that come before this one."""
        dimension = self.label_parts[part][0]
        same = [name for name, (other, _) in self.label_parts.items() if other == dimension]
        return same[: same.index(part)]


def key_of(content: Mapping[str, Any]) -> str:
    """The content key: 32 hexadecimal digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def label_parts(problem: Problem) -> dict[str, tuple[str, LabelSource]]:
    """Every dimension and source of labels, by the name of its part of `annotations`."""
    return {
        f"{dimension} by {source_name(source)}": (dimension, source)
        for dimension in problem.dimension_names
        for source in problem.label_sources(dimension)
    }


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
