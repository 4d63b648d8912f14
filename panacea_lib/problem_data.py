"""A problem's section on data: where prompts, responses, pairs and labels come from."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from panacea_lib.problem_types import DimensionName, License, Positive, Strict


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
        default={},
        description="per dimension: a column holding [score of a, score of b], or {a:, b:}, "
        "or {preferred:}; none where other sources label the pairs (the section `labels`)",
    )


class ResponseColumns(Strict):
    """A row is one graded response; consecutive responses to one prompt become pairs."""

    layout: Literal["responses"]
    prompt: str = "prompt"
    response: str = "response"
    scores: dict[DimensionName, str] = Field(
        default={}, description="per dimension: the column of its score"
    )


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
