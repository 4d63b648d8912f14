"""A judge's message → its verdict, or the reason why it is none. Nothing is ever guessed.

Only the whole message counts: one JSON object of exactly the agreed form. A verdict inside prose is
none, for the prose may quote the response that is being judged.
"""

import json
from typing import Any, Literal, NamedTuple

from pydantic import ValidationError

from panacea_lib.labelling.rubric import Mode, Rubric
from panacea_lib.problem_types import Strict

REFUSAL = "refusal"
"""The `finish` of a message that the model put in the place for refusals."""

_SHOWN = 80
_LONGEST = 20_000  # characters; no honest answer comes near it
_PREFERS_FIRST = {"first": 1.0, "second": 0.0, "tie": 0.5}


class Verdict(NamedTuple):
    """P(the first response is preferred) in mode pair, the score in mode response, or neither.

    reason: why there is no value, None where there is one.
    """

    value: float | None
    reason: str | None


class _PairAnswer(Strict):
    reason: str | None = None
    preferred: Literal["first", "second", "tie"]


class _ScoreAnswer(Strict):
    reason: str | None = None
    score: float


_VERDICT_SCHEMA: dict[Mode, dict[str, Any]] = {
    "pair": {"preferred": {"type": "string", "enum": list(_PREFERS_FIRST)}},
    # Without the scale: not every server that can hold a model to a schema knows `minimum`.
    "response": {"score": {"type": "number"}},
}


def answer_schema(mode: Mode) -> dict[str, Any]:
    """The JSON schema that a server is asked to hold the model to.

    All keys are required, as strict servers demand; the reason comes first, so that it is thought
    of before the verdict.
    """
    properties = {"reason": {"type": "string"}, **_VERDICT_SCHEMA[mode]}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def read_answer(rubric: Rubric, content: str | None, finish: str | None) -> Verdict:
    """The verdict of one message; content: its text; finish: why it ended, as the server says."""
    if finish == REFUSAL:
        return _none(f"the judge declined: {_shown(content or '')}")
    if finish == "length":
        return _none("the answer was cut off at max_answer_tokens")
    if finish == "content_filter":
        return _none("the server's content filter stopped the answer")
    if content is None or not content.strip():
        return _none("the answer is empty")
    if len(content) > _LONGEST:
        return _none(f"the answer has {len(content):,} characters")
    try:
        values = json.loads(_unfenced(content.strip()), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError):
        return _none(f"the answer is not one JSON object: {_shown(content)}")
    try:
        return _verdict(rubric, values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "answer"
        return _none(f"{place[:_SHOWN]}: {first['msg']}: {_shown(content)}")


def _verdict(rubric: Rubric, values: Any) -> Verdict:
    if rubric.scale is None:
        answer = _PairAnswer.model_validate(values, strict=True)
        return Verdict(_PREFERS_FIRST[answer.preferred], None)
    low, high = rubric.scale
    score = _ScoreAnswer.model_validate(values, strict=True).score
    if not low <= score <= high:
        return _none(f"the score {score:g} is not from {low:g} to {high:g}")
    return Verdict(score, None)


def _none(reason: str) -> Verdict:
    return Verdict(None, reason)


def _shown(content: str) -> str:
    text = " ".join(content[: 4 * _SHOWN].split())
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")


def _unfenced(text: str) -> str:
    """The text without the one fence that may enclose all of it."""
    first, _, rest = text.partition("\n")
    if first.strip() in ("```", "```json") and rest.endswith("```"):
        return rest.removesuffix("```")
    return text


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):  # two verdicts are none
        raise ValueError("a key stands there twice")
    return values
