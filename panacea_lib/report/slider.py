"""The part of the page that moves: a slider of λ over what was evaluated.

Everything it can show is in the page, as JSON that only `slider.js` reads; no text of a model ever
becomes markup.
"""

import json
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from panacea_lib.report.drawing import OPTIMUM, REFERENCE
from panacea_lib.report.fronts import (
    Front,
    fronts_of,
    judges_of,
    optimum_name,
    share_reached,
    values_of,
)
from panacea_lib.report.markup import Row, clean, text

SCRIPT = (Path(__file__).parent / "slider.js").read_text("utf-8")
_CLIPPED = 700  # characters of a prompt or an answer: a page of m = 10 holds thousands of them


def slider_data(
    front_rewards: pa.Table, front_values: pa.Table, dimensions: list[str], answers: Sequence[Row]
) -> dict[str, Any]:
    """What the slider shows, as JSON takes it, by the best judge.

    answers: rows of a few prompts with prompt_id, prompt, method, point and response, one answer
    per prompt, method and point; the reference policy's have any point. Only methods with answers
    can be chosen. The grid of λ is the same for all methods.
    """
    judge = judges_of(front_rewards)[0]
    fronts = fronts_of(front_rewards, dimensions, judge)
    answered = {row["method"] for row in answers}
    learned = [name for name in fronts if name in answered and name not in (OPTIMUM, REFERENCE)]
    if not learned:
        raise ValueError("no learned method has answers to show")
    return {
        "dimensions": [clean(name) for name in dimensions],
        "judge": judge,
        "optimumName": optimum_name(judge),
        "grid": _rounded(fronts[learned[0]].weight),
        "methods": [clean(name) for name in learned],
        "fronts": [_points(fronts[name], values_of(front_values, name, judge)) for name in learned],
        "optimum": _rounded(fronts[OPTIMUM].reward) if OPTIMUM in fronts else None,
        "reference": _rounded(fronts[REFERENCE].reward[0]),
        "prompts": _prompts(answers, learned, len(fronts[learned[0]].weight)),
    }


def _points(front: Front, values: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """A point per λ: rewards as [mean, low, high] per dimension, kl alike, share reached."""
    rewards = np.stack([front.reward, front.low, front.high], axis=-1)
    kl = np.stack([values["kl"], values["kl_low"], values["kl_high"]], axis=-1)
    share = share_reached(values)
    return [
        {"rewards": _rounded(r), "kl": _rounded(k), "share": _rounded(s)}
        for r, k, s in zip(rewards, kl, share, strict=True)
    ]


def _rounded(figures: np.ndarray) -> Any:
    """Nested lists of numbers with four decimals; JSON has no infinity: None instead."""
    if figures.ndim:
        return [_rounded(part) for part in figures]
    return round(float(figures), 4) if isfinite(figures) else None


def _prompts(answers: Sequence[Row], learned: list[str], points: int) -> list[dict[str, Any]]:
    """A prompt each, in the order of its first row: its text, the reference policy's answer, and a
    list of answers per method, one per point; None where there is no answer."""
    found: dict[str, dict[str, Any]] = {}
    for row in answers:
        entry = found.setdefault(
            row["prompt_id"],
            {
                "prompt": _clipped(row["prompt"]),
                "reference": None,
                "answers": [[None] * points for _ in learned],
            },
        )
        if row["method"] == REFERENCE:
            entry["reference"] = _clipped(row["response"])
        elif row["method"] in learned:
            entry["answers"][learned.index(row["method"])][row["point"]] = _clipped(row["response"])
    return list(found.values())


def _clipped(words: str) -> str:
    words = clean(words)
    return words if len(words) <= _CLIPPED else words[: _CLIPPED - 1] + "…"


def slider_panel(data: Mapping[str, Any]) -> str:
    """The section's body: inputs with labels, places for what they choose, and the data. The panel
    is hidden until the script runs. Where it cannot, for whatever reason, a note stays that says
    where the same figures are."""
    # All of ASCII, and "<" escaped: no text can end the element or begin another.
    embedded = json.dumps(data, allow_nan=False).replace("<", "\\u003c")
    return (
        '<p class="note" id="slider-note">The slider needs JavaScript. Without it, the same front '
        "is among the pictures and in the table “What each preference gets”.</p>\n"
        '<div id="slider" hidden="hidden">\n'
        f"{_controls(data)}{_result(data)}{_answers(data)}</div>\n"
        f'<script type="application/json" id="slider-data">{embedded}</script>'
    )


def _controls(data: Mapping[str, Any]) -> str:
    """A choice of method, and a range per dimension; two dimensions share one."""
    options = "".join(
        f'<option value="{k}">{text(name)}</option>' for k, name in enumerate(data["methods"])
    )
    names = [text(name) for name in data["dimensions"]]
    if len(names) == 2:
        ranges = _range(0, f"weight of {names[0]}; {names[1]} has the rest")
        ranges += f'<p class="ends"><span>all {names[1]}</span><span>all {names[0]}</span></p>\n'
    else:
        ranges = "".join(_range(k, f"weight of {name}") for k, name in enumerate(names))
    kind = "ranges" if len(names) == 2 else "ranges several"
    return (
        '<div class="controls">\n<div class="field"><label for="slider-method">method</label>'
        f'<select id="slider-method">{options}</select></div>\n'
        f'<div class="{kind}">\n{ranges}</div>\n</div>\n'
        '<p class="asked">You ask for λ = <span id="slider-asked"></span></p>\n'
        '<p class="nearest">Nearest evaluated λ: <output id="slider-nearest"></output></p>\n'
    )


def _range(place: int, label: str) -> str:
    name = f"slider-weight-{place}"
    return (
        f'<div class="field"><label for="{name}">{label}</label>'
        f'<input type="range" id="{name}" class="weight" min="0" max="100" value="50"/></div>\n'
    )


def _result(data: Mapping[str, Any]) -> str:
    """The chart, and beside it the figures of the chosen point."""
    optimum = data["optimum"] is not None
    head = ["", "λ", "mean reward", "95 % interval", "reference"]
    head += [data["optimumName"]] if optimum else []
    heads = "".join(f'<th scope="col" class="number">{name}</th>' for name in head[1:])
    rows = "".join(
        f'<tr><th scope="row" class="name">{text(name)}</th>'
        + "".join(f'<td class="number" id="slider-{c}-{k}"></td>' for c in _CELLS[: len(head) - 1])
        + "</tr>\n"
        for k, name in enumerate(data["dimensions"])
    )
    key = '<span class="key chosen"></span>the chosen method '
    key += f'<span class="key optimum"></span>{data["optimumName"]} ' if optimum else ""
    key += '<span class="key reference"></span>reference policy'
    return (
        '<div class="result">\n<figure><div id="slider-chart"></div>'
        f'<figcaption class="keys">{key}</figcaption></figure>\n'
        '<div class="figures">\n<div class="scroll" tabindex="0"><table>\n'
        f"<thead><tr><td></td>{heads}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>\n"
        '<p>KL from the reference policy: <b id="slider-kl"></b> nats. '
        'Share of the attainable improvement at this λ: <b id="slider-share"></b>. '
        f"Judge: {text(data['judge'])}.</p>\n"
        f"{_RAW if optimum else ''}</div>\n</div>\n"
    )


_RAW = (
    '<p class="small">Rewards are raw: by drifting further a method may get more of them than the '
    "optimum. The share charges for that.</p>\n"
)
_CELLS = ("lambda", "mean", "interval", "reference", "optimum")


def _answers(data: Mapping[str, Any]) -> str:
    """A card per prompt: the answer under the chosen λ beside the reference policy's."""
    if not data["prompts"]:
        return ""
    cards = "".join(
        f'<li><p class="prompt">{text(one["prompt"])}</p>\n<div class="pair">'
        f'<div><h4>under this λ</h4><p class="answer" id="slider-answer-{k}"></p></div>\n'
        f'<div><h4>reference policy</h4><p class="answer">{text(one["reference"] or "–")}</p>'
        "</div></div></li>\n"
        for k, one in enumerate(data["prompts"])
    )
    return (
        "<h3>Answers to held-out prompts</h3>\n"
        f'<p class="small">{len(data["prompts"])} held-out prompts, chosen because there Panacea’s '
        "rewards move most with λ; most prompts move less. One sampled answer each, the first "
        f'that was drawn.</p>\n<ul class="answers">\n{cards}</ul>\n'
    )
