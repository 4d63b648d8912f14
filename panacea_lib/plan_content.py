"""What the product of each stage follows from, apart from its version, libraries and seed.

A stage's content names its section of the configuration and the keys of its inputs, so what is not
named here may change and nothing is made anew.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from panacea_lib.problem import Problem
from panacea_lib.problem_data import FileData, HubData, SeveralData, WorldData, part_name
from panacea_lib.problem_labelling import (
    DataLabels,
    JudgeLabels,
    ModelLabels,
    counts_tokens,
)
from panacea_lib.problem_models import PretrainedModel
from panacea_lib.problem_training import PER_PREFERENCE

if TYPE_CHECKING:
    from panacea_lib.plan import Plan

STAGE_VERSIONS = {
    "prompts": 1,
    "base_model": 2,
    "responses": 1,
    "pairs": 1,
    "annotations": 2,
    "preference_labels": 2,
    "reward_models": 2,
    "response_rewards": 1,
    "panacea_policy": 3,
    "baseline_policies": 3,
    "generations": 2,
    "pareto_front": 2,
    "report": 2,
    "champion": 2,
}
"""All stages, in the order of the chain. Raise a number by hand when the stage's code begins to
make something else of the same inputs: its products, and all that follow from them, are remade."""

_AFTER_FRONT = ("report", "champion")
# Where a data section's data lies; what lies there is in the fingerprint.
_PLACES = {"path", "dataset", "revision", "subset", "data_dir", "hub_split"}


def content_of(plan: "Plan", stage: str, part: str) -> dict[str, Any]:
    """What a product follows from, apart from its stage's version, libraries and the seed."""
    p = plan.problem
    names = p.dimension_names
    match stage:
        case "prompts":
            dimensions = [d.model_dump(mode="json") for d in p.dimensions]
            return {"data": _data(plan), "dimensions": dimensions}
        case "base_model":
            return _base_content(plan)
        case "responses":
            content = {
                "data": _data(plan),
                "base": _loaded_base(plan),
                "reference": p.reference.model_dump(mode="json"),
            }
            if p.pairs is not None:
                content["generated"] = p.pairs.model_dump(mode="json", exclude={"count"})
                content["dimensions"] = len(names)  # the λ that answers are drawn under
            if isinstance(p.data, WorldData) and p.data.files:
                content["files"] = _files(plan, p.data.files)
            return content
        case "pairs":
            if p.pairs is not None:
                return {"responses": plan.key("responses"), "count": p.pairs.count}
            if isinstance(p.data, WorldData):
                return {"responses": plan.key("responses"), "count": p.data.pairs}
            return {"data": _data(plan)}
        case "annotations":
            return _annotations_content(plan, part)
        case "preference_labels":
            return {"labels": {name: _labels(plan, name) for name in names}}
        case "reward_models":
            return _reward_content(plan, part)
        case "response_rewards":
            models = plan.key("reward_models", plan.reward_model_of(part))
            content = {"reward_model": models, "responses": plan.key("responses")}
            return content | ({"dimension": part} if p.rewards.trunk == "shared" else {})
        case "panacea_policy" | "baseline_policies":
            return _policy_content(plan, part)
        case "generations":
            policy = None if part == "reference" else plan.key(policy_stage(part), part)
            return answers_content(plan, policy)
        case "pareto_front":
            return {
                "generations": plan.keys("generations"),
                "base": _loaded_base(plan),
                "rewards": plan.keys("response_rewards"),
                "labels": plan.key("preference_labels"),
                "beta": p.beta,
                "evaluation": p.evaluation.model_dump(mode="json"),
            }
        case "report":
            return {
                "problem": p.model_dump(mode="json", include={"name", "description", "owner"}),
                "keys": {s: plan.keys(s) for s in STAGE_VERSIONS if s not in _AFTER_FRONT},
            }
        case "champion":
            return {
                "answers": [plan.key("generations", name) for name in ("panacea", "reference")],
                "base": _loaded_base(plan),
                "beta": p.beta,
                "bootstrap": p.evaluation.bootstrap,
                "champion": p.champion.model_dump(mode="json"),
            }
    raise AssertionError(stage)


def _reward_content(plan: "Plan", part: str) -> dict[str, Any]:
    rewards, names = plan.problem.rewards, plan.problem.dimension_names
    config = rewards.model_dump(mode="json", exclude={"checkpoint_every", "model"})
    base: Any = _loaded_base(plan)
    if rewards.model is not None:
        apart = {"model", "revision", "license"}
        numbers = rewards.model.model_dump(mode="json", exclude=apart)
        base = {"is": plan.reward_fingerprint, "as": numbers}
    content = {"base": base, "rewards": config | {"steps": plan.steps(rewards.steps)}}
    if rewards.trunk == "separate":
        return content | {"labels": _labels(plan, part)}
    # The order of the dimensions is the order of the heads.
    return content | {"labels": [[name, _labels(plan, name)] for name in names]}


def _policy_content(plan: "Plan", method: str) -> dict[str, Any]:
    p = plan.problem
    numbers = p.training_of(method)
    # Neither when it is saved on the way nor another method's numbers change an adapter.
    apart = {"checkpoint_every", *numbers.of_other_methods}
    config = numbers.model_dump(mode="json", exclude=apart)
    content = {
        "base": _loaded_base(plan),
        "labels": {name: _labels(plan, name) for name in p.dimension_names},
        "dimensions": p.dimension_names,  # their order is the order of λ
        "method": method,
        "beta": p.beta,
        "training": config | {"steps": plan.steps(p.training.steps)},
    }
    if method in PER_PREFERENCE:
        content["preferences"] = p.lora_preferences
    if needs_rewards(p, method):
        content["rewards"] = plan.keys("response_rewards")
    return content


def answers_content(plan: "Plan", policy_key: str | None) -> dict[str, Any]:
    """What the answers of a policy follow from, also of one that this plan does not train; None is
    the reference policy."""
    p = plan.problem
    return {
        "data": _data(plan),
        "base": _loaded_base(plan),
        **({"policy": policy_key} if policy_key else {}),
        "dimensions": p.dimension_names,
        "judges": plan.keys("response_rewards"),  # the reward models and their scale
        "labels": plan.key("preference_labels"),  # the gold scale
        "evaluation": p.evaluation.model_dump(mode="json", exclude={"bootstrap"}),
    }


def _data(plan: "Plan") -> dict[str, Any]:
    """What the prompts (of a file also pairs and labels) follow from, but for dimensions."""
    data = plan.problem.data
    content = {"version": STAGE_VERSIONS["prompts"], "is": plan.data_fingerprint}
    if isinstance(data, WorldData):
        # Its files are about the same prompts: what they add begins with their responses.
        apart = {"license", "pairs", "annotators", "files"}
        return {**content, "as": data.model_dump(mode="json", exclude=apart)}
    apart = {"license", *_PLACES}
    config = data.model_dump(mode="json", exclude=apart)
    if isinstance(data, SeveralData):
        config |= _parts(data.parts)
    return {**content, "as": config, "unlabelled": plan.problem.keeps_unlabelled}


def _parts(parts: Sequence[FileData | HubData]) -> dict[str, Any]:
    apart = {"license", *_PLACES, "split"}  # the whole data's split counts
    return {
        "parts": [part.model_dump(mode="json", exclude=apart) for part in parts],
        # A part's name stands in its annotations, also where it is the file's.
        "names": [part_name(part) for part in parts],
    }


def _files(plan: "Plan", files: Sequence[FileData]) -> dict[str, Any]:
    """What the embedded world's further pairs follow from, apart from its prompts."""
    told = _parts(files)
    return {"is": plan.files_fingerprint, "unlabelled": plan.problem.keeps_unlabelled, **told}


def _base_content(plan: "Plan") -> dict[str, Any]:
    base = plan.problem.base_model
    apart = {"quantization", "model", "revision", "license"}
    config = base.model_dump(mode="json", exclude=apart)
    content = {"base_model": config, "is": plan.model_fingerprint}
    if not isinstance(base, PretrainedModel):
        content["data"] = _data(plan)
    return content


def _loaded_base(plan: "Plan") -> list[str]:
    """The base model as stages load it: quantised, from one artifact for all quantisations."""
    return [plan.key("base_model"), plan.problem.base_model.quantization]


def _annotations_content(plan: "Plan", part: str) -> dict[str, Any]:
    dimension, source = plan.label_parts[part]
    data = plan.problem.data
    content = {
        "pairs": plan.key("pairs"),
        "dimension": dimension,
        "source": source.model_dump(mode="json"),
        "is": plan.label_fingerprints.get(part),
    }
    if isinstance(source, DataLabels) and isinstance(data, WorldData):
        content["annotators"] = data.annotators
    if counts_tokens(source):
        content["tokenizer"] = plan.key("base_model")
    if isinstance(source, ModelLabels):
        content["libraries"] = [plan.versions[name] for name in ("torch", "transformers")]
    if isinstance(source, JudgeLabels):  # it labels what they have not
        content["after"] = [plan.key("annotations", name) for name in plan.more_trusted(part)]
    return content


def _labels(plan: "Plan", dimension: str) -> list[str]:
    """The labels of one dimension, which do not depend on the others."""
    return [
        plan.key("annotations", part)
        for part, (name, _) in plan.label_parts.items()
        if name == dimension
    ]


def policy_stage(method: str) -> str:
    """The stage that trains a method; the reference policy has none."""
    return "panacea_policy" if method == "panacea" else "baseline_policies"


def needs_rewards(problem: Problem, method: str) -> bool:
    """Whether a policy's training looks at rewards, not only at labels."""
    return problem.training_of(method).method in ("reward_distillation", "rloo")
