"""A problem's section on labelling: who says, on which dimension, which response is preferred."""

from typing import Annotated, Literal, Self

import duckdb
from pydantic import Field, model_validator

from panacea_lib import quiet_duckdb
from panacea_lib.problem_types import Positive, Strict

Unit = Literal["characters", "words", "tokens"]


class GeneratedPairs(Strict):
    """Pairs of answers that are generated for the problem's own prompts, to be labelled."""

    per_prompt: Annotated[int, Field(ge=2, description="answers to each prompt")] = 4
    count: Annotated[int, Field(gt=0, description="at most so many pairs")] = 2000
    prompts: Positive | None = Field(
        default=None, description="of the training and validation sides; default: all"
    )
    max_new_tokens: Positive = 40
    batch_size: Positive = 512
    policy: Annotated[
        str | None,
        Field(
            pattern=r"^[0-9a-f]{32}$",
            description="the content key of a trained Panacea policy, which then answers under λ "
            "spread evenly over the simplex; default: the base model",
        ),
    ] = None


class Scored(Strict):
    """What all sources that score responses one by one have in common."""

    temperature: Annotated[
        float | None,
        Field(
            gt=0,
            description="P(a preferred) = σ((score of a − score of b) / temperature); by default "
            "the higher score wins and equal ones are a tie",
        ),
    ] = None


class DataLabels(Strict):
    """The labels that came with the data; in the embedded world, those of its annotators."""

    kind: Literal["data"]


class Conciseness(Scored):
    """The paper's reward: `marks` up to `tokens` tokens, then marks + 1 − length / tokens."""

    kind: Literal["conciseness"]
    marks: float = 4.0
    tokens: Positive = 50


class Length(Scored):
    """The longer response, or the shorter one."""

    kind: Literal["length"]
    unit: Unit = "words"
    prefer: Literal["longer", "shorter"] = "shorter"


class Matches(Scored):
    """The response with more matches of a regular expression (RE2's syntax), or with fewer."""

    kind: Literal["matches"]
    pattern: Annotated[
        str,
        Field(min_length=1, description="(?i) ignores case, (?m) lets ^ and $ match at line ends"),
    ]
    prefer: Literal["more", "fewer"] = "more"

    @model_validator(mode="after")
    def _check_pattern(self) -> Self:
        """Asks RE2 itself, by way of DuckDB."""
        try:
            with quiet_duckdb.connect() as connection:
                row = connection.execute("select regexp_matches('', $1)", [self.pattern]).fetchone()
        except duckdb.Error as error:
            said = str(error).removeprefix("Invalid Input Error: ")
            raise ValueError(
                f"pattern: {self.pattern!r} is no regular expression of RE2 ({said}); mend it "
                "(RE2 has neither look-around nor back-references)"
            ) from None
        if row == (True,):
            raise ValueError(
                f"pattern: {self.pattern!r} matches where there is no text at all, so it would "
                "count the places between characters; write + instead of *, or name a character"
            )
        return self


class Readability(Scored):
    """The Automated Readability Index (Senter and Smith, 1967): the easier text, or the harder."""

    kind: Literal["readability"]
    prefer: Literal["easier", "harder"] = "easier"


class ModelLabels(Scored):
    """An existing reward model, or one class of a classifier, from the hub or a local directory."""

    kind: Literal["model"]
    model: str = Field(
        description="hub id, or a directory if it begins with /, ., ~ or ${VARIABLE}"
    )
    revision: str = "main"
    label: str | None = Field(
        default=None,
        description="the class whose log probability is the score, by its name in the model's "
        "config; default: the one output of a reward model",
    )
    max_length: Positive = 1024


class JudgeLabels(Scored):
    """A language model that reads a rubric, behind any OpenAI-compatible endpoint."""

    kind: Literal["judge"]
    judge: str = Field(description="one of `judges`")
    rubric: str | None = Field(
        default=None,
        description="rubrics/NAME.md beside the problem's file, or a shipped one; default: the "
        "dimension's name",
    )
    overlap: Annotated[
        int,
        Field(
            ge=0,
            description="pairs that an earlier source has labelled and the judge labels too, so "
            "that their agreement is known; others that have a label are left to it",
        ),
    ] = 100
    limit: Positive | None = Field(default=None, description="label at most so many pairs")


class PeopleLabels(Strict):
    """Answers of people, as `panacea people import` has filed them."""

    kind: Literal["people"]
    path: str | None = Field(
        default=None,
        description="the folder of the answers, relative to the problem's file; default: "
        "var/people/PROBLEM of the workspace",
    )


LabelSource = Annotated[
    DataLabels
    | PeopleLabels
    | JudgeLabels
    | ModelLabels
    | Conciseness
    | Length
    | Matches
    | Readability,
    Field(discriminator="kind"),
]
Rule = Conciseness | Length | Matches | Readability


class Price(Strict):
    """What a judge's tokens cost, per million, in any one currency."""

    input: Annotated[float, Field(ge=0)]
    output: Annotated[float, Field(ge=0)]


class Judge(Strict):
    """An OpenAI-compatible endpoint (vLLM, llama.cpp, a provider) and how it may be used."""

    endpoint: Annotated[
        str,
        Field(pattern=r"^https?://[^\s@]+$", description="up to /v1, without /chat/completions"),
    ]
    model: str
    api_key_env: Annotated[
        str | None,
        Field(
            pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
            description="the environment variable that holds the key, which itself stands nowhere",
        ),
    ] = None
    answer_format: Annotated[
        Literal["json_schema", "json_object", "text"],
        Field(description="what the server can be held to; the answer is checked all the same"),
    ] = "json_schema"
    max_answer_tokens: Positive = 256
    in_flight: Annotated[int, Field(gt=0, le=1024, description="requests at a time")] = 32
    timeout: Annotated[float, Field(gt=0, description="seconds a request may take")] = 120.0
    attempts: Annotated[int, Field(gt=0, description="at one request, the first one included")] = 6
    max_requests: Positive | None = Field(
        default=None, description="budget of one run: more requests than this are refused"
    )
    max_tokens: Positive | None = Field(
        default=None, description="budget of one run, of prompts and answers together"
    )
    price: Price | None = None


def source_name(source: LabelSource) -> str:
    """What tells a dimension's sources apart: their kind, and whose."""
    match source:
        case JudgeLabels():
            return f"judge {source.judge}"
        case ModelLabels():
            return f"model {source.model}"
        case _:
            return source.kind


def counts_tokens(source: LabelSource) -> bool:
    """Whether a source needs the base model's tokenizer."""
    return isinstance(source, Conciseness) or (
        isinstance(source, Length) and source.unit == "tokens"
    )
