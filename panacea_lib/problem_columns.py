"""A problem's mapping of columns: what a row is, and which column holds what."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from panacea_lib.problem_types import DimensionName, Strict


class ScorePair(Strict):
    """Two columns that hold the scores of response a and of response b."""

    a: str
    b: str


class Preferred(Strict):
    """One column that holds P(a preferred over b) in [0, 1], or one of "a", "b", "tie"."""

    preferred: str
    values: dict[str, Literal["a", "b", "tie", "unknown"]] | None = Field(
        default=None,
        description='what the column\'s own words or numbers mean, e.g. {"0": a, "1": b}; no '
        "others may then stand there",
    )


class Strength(Strict):
    """One column that holds how much better one response is: 0 is a tie, the sign says which.

    P(a preferred over b) = (1 ± value / scale) / 2, so that a slight preference is a soft label.
    """

    strength: str
    scale: Annotated[float, Field(gt=0, description="the largest value that may stand there")]
    positive: Literal["a", "b"] = Field(description="which response a positive value prefers")


def _label_kind(value: Any) -> str:
    """Which of the four forms a label has, so that an error speaks of that one only."""
    for key, form in (("preferred", Preferred), ("strength", Strength)):
        if isinstance(value, form) or (isinstance(value, dict) and key in value):
            return f"{{{key}:}}"
    return "{a:, b:}" if isinstance(value, dict | ScorePair) else "column"


LabelColumn = Annotated[
    Annotated[str, Tag("column")]
    | Annotated[ScorePair, Tag("{a:, b:}")]
    | Annotated[Preferred, Tag("{preferred:}")]
    | Annotated[Strength, Tag("{strength:}")],
    Discriminator(_label_kind),
]


class _Columns(Strict):
    """What all layouts have. A prompt may be text or a list of messages {role:, content:}."""

    drop_empty: bool = Field(
        default=False, description="drop (and count) rows with an empty text, which else are errors"
    )
    topic: str | None = Field(
        default=None,
        description="the column that says what the prompt is about, by a word or a whole number; "
        "reward models are then also tried by topic",
    )


class PairColumns(_Columns):
    """A row is a pair of responses. Column names may be dotted paths into nested fields."""

    layout: Literal["pairs"]
    id: str | None = None
    prompt: str = "prompt"
    response_a: str = "response_a"
    response_b: str = "response_b"
    annotator: str | None = Field(default=None, description="the column that says who labelled it")
    labels: dict[DimensionName, LabelColumn] = Field(
        default={},
        description="per dimension: a column holding [score of a, score of b], or {a:, b:}, "
        "or {preferred:}, or {strength:}; none where other sources label the pairs (the section "
        "`labels`)",
    )


class ChosenColumns(_Columns):
    """A row is a chosen and a rejected response, on one dimension.

    Without a prompt column both are whole dialogues, as text (`\\n\\nHuman: … \\n\\nAssistant: …`)
    or as lists of messages; their last turns are the responses.
    """

    layout: Literal["chosen"]
    prompt: str | None = None
    chosen: str = "chosen"
    rejected: str = "rejected"
    dimension: DimensionName = Field(description="the one on which `chosen` is preferred")


class ResponseColumns(_Columns):
    """A row is one graded response, or a prompt with a list of them; two of a prompt are a pair."""

    layout: Literal["responses"]
    prompt: str = "prompt"
    completions: str | None = Field(
        default=None,
        description="the column of the list of responses; `response` and `scores` are then "
        "fields of its entries",
    )
    response: str = "response"
    scores: dict[DimensionName, str] = Field(
        default={},
        description="per dimension: the column of its score, a number or a truth value; none where "
        "other sources label the pairs (the section `labels`)",
    )
    unknown: list[str] = Field(default=[], description="words that mean no score, e.g. N/A")
    group: Annotated[
        Literal["consecutive", "prompt"],
        Field(description="pair consecutive responses to one prompt, or those anywhere"),
    ] = "consecutive"


class DemonstrationColumns(_Columns):
    """A row is a prompt and the response that shows one dimension (supervised fine-tuning).

    Responses to one prompt that show different dimensions also become pairs: each dimension
    prefers its own.
    """

    layout: Literal["demonstrations"]
    prompt: str = "instruction"
    input: str | None = Field(
        default=None, description="a column that goes below the prompt where it is not empty"
    )
    response: str = "output"
    dimension: DimensionName = Field(description="the one that the responses show")


Columns = Annotated[
    PairColumns | ChosenColumns | ResponseColumns | DemonstrationColumns,
    Field(discriminator="layout"),
]


def mapped_dimensions(columns: Columns) -> list[str]:
    """The dimensions that the columns say something of."""
    match columns:
        case PairColumns():
            return list(columns.labels)
        case ResponseColumns():
            return list(columns.scores)
        case ChosenColumns() | DemonstrationColumns():
            return [columns.dimension]
