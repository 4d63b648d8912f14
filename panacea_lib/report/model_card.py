"""A model card: README.md in the Hugging Face format, for a folder that can be uploaded as it is.

Figures are those of the warehouse's views, texts those of the problem file. Nothing that a file
says can break out of its place: front matter is written by a YAML library, cells are escaped.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from panacea_lib.evaluation.choose import Estimate, FrontPoint
from panacea_lib.problem import Problem
from panacea_lib.problem_data import FileData, HubData, WorldData, license_of, parts_of
from panacea_lib.problem_files import is_local
from panacea_lib.problem_models import PretrainedModel
from panacea_lib.report.card_code import adapter_code, policy_code

PANACEA_ADAPTERS = ("panacea", "panacea_dpo", "panacea_sft", "panacea_rloo")
_ROWS = 21  # of a front; of longer grids the vertices and the centre, which come first
_METHODS = {
    "rewarded_soups": "One LoRA per dimension, interpolated by λ when it is asked (rewarded soups, "
    "arXiv 2306.04488).",
    "mod": "One LoRA per dimension, mixed token by token by λ (MOD, arXiv 2406.18853).",
    "lora_per_preference": "One LoRA for each λ of a small set; the nearest answers.",
    "oracle": "One LoRA for each λ of a small set, each with all the steps; the nearest answers.",
    "prompt_conditioned": "One LoRA that reads λ before the prompt.",
}
_PANACEA = (
    "One adapter for every preference vector λ (Panacea, arXiv 2402.02030): give it a λ with the "
    "question, and it answers for that λ. Rows of one batch may have different λ."
)
_OBJECTIVES = {
    "reward_distillation": "reward distillation: implicit reward differences regressed on λ·Δr",
    "dpo": "DPO, one loss per dimension",
    "sft": "supervised fine-tuning on what each dimension prefers",
    "rloo": "RLOO, online, on Σ λᵢ·rᵢ − β·KL",
}
_CITATION = """\
```bibtex
@misc{zhong2024panacea,
  title         = {Panacea: Pareto Alignment via Preference Adaptation for {LLMs}},
  author        = {Yifan Zhong and Chengdong Ma and Xiaoyuan Zhang and Ziran Yang and
                   Haojun Chen and Qingfu Zhang and Siyuan Qi and Yaodong Yang},
  year          = {2024},
  eprint        = {2402.02030},
  archivePrefix = {arXiv}
}
```"""


@dataclass(frozen=True)
class Evaluated:
    """What the last evaluation says of the method: its row of `leaderboard`, and its points by the
    same judge."""

    leaderboard: Mapping[str, Any]
    points: Sequence[FrontPoint]


def model_card(
    problem: Problem,
    method: str,
    base_place: str,
    evaluated: Evaluated | None,
    frozen_at: Mapping[str, float] | None = None,
    has_slider: bool = False,
) -> str:
    """The card of one trained method; with `frozen_at` that of its LoRA at this λ. `has_slider`
    says that a slider.json lies beside it.

    base_place: what `from_pretrained` finds the base model under, from the card's folder.
    """
    judge = evaluated.leaderboard["judge"] if evaluated else None
    sections = {
        "": _intro(problem, method, frozen_at),
        "Load it and ask it": _loading(problem, method, base_place, frozen_at),
        "Dimensions": _dimensions(problem),
        "Training": _training(problem, method, evaluated),
        "Evaluation": _evaluation(problem, evaluated) if evaluated else "It was not evaluated.",
        "Which λ?": _front(problem, evaluated, frozen_at, has_slider) if evaluated else "",
        "Limits": "\n".join(f"- {limit}" for limit in _limits(problem, method, judge)),
        "Licences": _licences(problem),
        "Citation": _CITATION,
    }
    body = [f"## {title}\n\n{text}" if title else text for title, text in sections.items() if text]
    return f"---\n{_front_matter(problem, method, frozen_at)}---\n\n" + "\n\n".join(body) + "\n"


def _front_matter(problem: Problem, method: str, frozen_at: Mapping[str, float] | None) -> str:
    base, data = problem.base_model, problem.data
    is_lora = frozen_at is not None or method not in PANACEA_ADAPTERS
    kinds = ["lora"] if is_lora else []
    values: dict[str, Any] = {
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["panacea", "multi-objective-alignment", *kinds, "arxiv:2402.02030"],
    }
    if isinstance(base, PretrainedModel) and not is_local(base.model):
        values["base_model"] = base.model
    # Where the two differ, which one an adapter falls under is not for a program to say.
    if base.license and base.license == license_of(data):
        values["license"] = base.license
    parts = [] if isinstance(data, WorldData) else parts_of(data)
    published = [p.dataset for p in parts if isinstance(p, HubData) and not is_local(p.dataset)]
    if published:
        values["datasets"] = list(dict.fromkeys(published))
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _intro(problem: Problem, method: str, frozen_at: Mapping[str, float] | None) -> str:
    what = _METHODS.get(method, _PANACEA)
    if frozen_at is not None:
        weights = ", ".join(f"{name} {weight:.6g}" for name, weight in frozen_at.items())
        what = (
            f"The policy `{method}` frozen at one preference vector, {weights}, as a plain LoRA: "
            "it takes no λ, and whatever reads PEFT's LoRA files can serve it."
        )
    about = f"The problem `{problem.name}`: {_plain(problem.description)}"
    text = f"# {problem.name}: {method}\n\n{what}"
    return f"{text}\n\n{about}" if problem.description.strip() else text


def _loading(
    problem: Problem, method: str, base_place: str, frozen_at: Mapping[str, float] | None
) -> str:
    if frozen_at is not None:
        return f"```python\n{adapter_code(problem, base_place, False)}```"
    needs = "It needs `panacea_lib`, the library that trained it."
    if method in PANACEA_ADAPTERS:
        return f"{needs}\n\n```python\n{adapter_code(problem, base_place, True)}```"
    return f"{needs}\n\n```python\n{policy_code(problem, method)}```"


def _dimensions(problem: Problem) -> str:
    rows = [[d.name, d.description] for d in problem.dimensions]
    return "In the order of λ's weights.\n\n" + _table(["dimension", "what it asks"], rows)


def _training(problem: Problem, method: str, evaluated: Evaluated | None) -> str:
    numbers = problem.training_of(method)
    rows = [
        ["objective", _OBJECTIVES[numbers.method]],
        ["β, the KL price in normalised reward", f"{problem.beta:g}"],
        ["batch", f"{numbers.batch_size} × {numbers.accumulation}"],
        ["learning rate", f"{numbers.learning_rate:g}"],
        ["rank k and α", f"{numbers.rank}, {numbers.alpha:g}"],
        ["quantisation of the base model", problem.base_model.quantization],
    ]
    cost = evaluated.leaderboard if evaluated else {}
    for name, column in (
        ("optimiser steps, all adapters together", "steps"),
        ("tokens", "tokens"),
        ("seconds", "seconds"),
        ("stored parameters", "stored_parameters"),
    ):
        if cost.get(column) is not None:
            rows.append([name, f"{cost[column]:,.0f}"])
    return _table(["", ""], rows)


def _evaluation(problem: Problem, evaluated: Evaluated) -> str:
    row = evaluated.leaderboard
    low, high = row["value_ratio_low"], row["value_ratio_high"]
    interval = "" if low is None else f" ({low:.3f} to {high:.3f})"
    rows = [
        ["value ratio (95 % interval over prompts)", f"{_figure(row['value_ratio'])}{interval}"],
        ["KL to the base model, nats", _figure(row["kl"])],
        ["hypervolume, charged for KL", _figure(row["charged_hypervolume"])],
        ["answers scored", f"{row['n']:,}"],
        ["judge", _judge(row["judge"])],
    ]
    return (
        "Held-out prompts, a fixed grid of λ, samples at temperature 1. The value ratio is the "
        "share of the attainable improvement: 0 the base model, 1 the optimum.\n\n"
        + _table(["figure", "value"], rows)
    )


def _judge(judge: str) -> str:
    return "gold: true rewards" if judge == "gold" else "proxy: the learned reward models"


def _front(
    problem: Problem,
    evaluated: Evaluated,
    frozen_at: Mapping[str, float] | None,
    has_slider: bool,
) -> str:
    names = problem.dimension_names
    shown = evaluated.points
    if len(shown) > _ROWS:
        shown = shown[: len(names) + 1]
    rows = [
        [
            ", ".join(f"{point.preference[name]:.3g}" for name in names),
            *(_estimate(point.rewards[name]) for name in names),
            _estimate(point.kl),
        ]
        for point in shown
    ]
    text = "Mean rewards in normalised units: 0 is the base model's mean, 1 its spread.\n\n"
    text += _table([f"λ ({', '.join(names)})", *names, "KL, nats"], rows)
    if frozen_at is not None:
        return f"The LoRA's own λ {_where(frozen_at, evaluated)}. {text}"
    if has_slider:
        text += (
            "\n\n`slider.json` has λ at equal steps along this front: interpolate linearly between "
            f"its positions, 0 all weight on {names[1]}, 1 all on {names[0]}."
        )
    return text


def _where(frozen_at: Mapping[str, float], evaluated: Evaluated) -> str:
    def gap(point: FrontPoint) -> float:
        return max(abs(point.preference[name] - weight) for name, weight in frozen_at.items())

    if min(map(gap, evaluated.points)) < 1e-6:
        return "is one of those that were evaluated"
    return "was not evaluated itself; the rows around it say what to expect"


def _limits(problem: Problem, method: str, judge: str | None) -> list[str]:
    numbers = problem.training_of(method)
    limits = [
        "λ chooses among the dimensions that were labelled; it adds no safety that the data did "
        "not hold.",
        "Intervals are over prompts. Other seeds were not tried; single answers vary more than "
        "means.",
    ]
    if isinstance(problem.data, WorldData):
        limits.append(
            "The data is a small synthetic world: it measures methods, and no such model is of use "
            "to anybody asking for help."
        )
    if numbers.method in ("reward_distillation", "rloo"):
        limits.append(
            "It was trained towards learned reward models, and is as good as they are; they "
            "learned from the labels, noise included."
        )
    if judge == "proxy":
        limits.append(
            "The judge is those learned reward models: a policy that found their mistakes is "
            "flattered."
        )
        limits.append(
            "The optimum was estimated from samples of the base model, too low: the value ratio "
            "reads high."
        )
    if numbers.method == "sft" or numbers.scalarization.kind != "linear":
        limits.append(
            "The value ratio speaks of methods that trade linearly against KL; this one does not "
            "aim there."
        )
    return limits


def _licences(problem: Problem) -> str:
    base, data = problem.base_model, problem.data
    model = base.model if isinstance(base, PretrainedModel) else None
    if model is None:
        model = "a small Llama, trained from scratch on the problem's own text"
    elif is_local(model):
        model = "a local model"  # where it lies is nobody's business
    unknown = "not stated in the problem file"
    rows = [["base model", model, base.license or unknown]]
    if isinstance(data, WorldData):
        rows.append(["data", "this project's synthetic world", data.license or unknown])
        rows += [["data", _source(part), part.license or unknown] for part in data.files]
    else:
        rows += [
            ["data", _source(part), part.license or data.license or unknown]
            for part in parts_of(data)
        ]
    return "As the problem file states them; an adapter is made of both.\n\n" + _table(
        ["", "what", "licence"], rows
    )


def _source(part: FileData | HubData) -> str:
    """What a data set is, without where it lies on this machine."""
    if isinstance(part, FileData):
        return f"a local file ({part.name})" if part.name else "a local file"
    return "a local data set" if is_local(part.dataset) else part.dataset


def _estimate(estimate: Estimate) -> str:
    mean = f"{estimate.mean:.3f}"
    if estimate.low is None or estimate.high is None:
        return mean
    return f"{mean} ({estimate.low:.3f} to {estimate.high:.3f})"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _plain(text: str) -> str:
    """One line of text in which neither HTML nor a table's bars can act."""
    line = " ".join(text.split())
    for sign, written in (("&", "&amp;"), ("<", "&lt;"), ("|", "&#124;")):
        line = line.replace(sign, written)
    return line


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([_plain(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
