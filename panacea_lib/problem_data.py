"""A problem's section on data: where prompts, responses, pairs and labels come from."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from panacea_lib.problem_columns import Columns
from panacea_lib.problem_types import License, Positive, Strict

PartName = Annotated[
    str,
    Field(pattern=r"^[^\s/][^\n/]{0,63}$", description="who labelled, in the annotations' rows"),
]


class Split(Strict):
    """Shares of the prompts; a prompt's side is a hash of its text, so none is on two sides."""

    validation: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    test: Annotated[float, Field(gt=0, lt=0.5)] = 0.1


class FileData(Strict):
    """A local file: JSONL, JSONL.gz, CSV or Parquet, told by its ending."""

    kind: Literal["file"]
    name: PartName | None = None
    license: License | None = None
    path: str = Field(description="relative to the problem's file; may name ${VARIABLES}")
    columns: Columns
    limit: Positive | None = None
    split: Split = Split()


class WorldData(Strict):
    """The embedded world (`panacea_lib.world`): prompts, answers and annotators, by seed."""

    kind: Literal["world"]
    license: License | None = None
    prompts: Annotated[int, Field(ge=20, description="distinct prompts, all splits together")] = 600
    pairs: Annotated[int, Field(ge=20, description="labelled pairs, train and validation")] = 6000
    annotators: Annotated[int, Field(gt=0, description="votes per pair and dimension")] = 3
    files: list[FileData] = Field(
        default=[],
        description="further pairs of answers to the world's own prompts, labelled by their "
        "columns; what the inbox has received joins them",
    )
    split: Split = Split()


class HubData(Strict):
    """A data set on the Hugging Face hub."""

    kind: Literal["hub"]
    name: PartName | None = None
    license: License | None = None
    dataset: str = Field(
        description="hub id, or a directory of data files if it begins with /, ., ~ or ${VARIABLE}"
    )
    revision: str = Field("main", description="pin a commit: a branch's content may change")
    subset: str | None = None
    data_dir: str | None = Field(default=None, description="only this folder of the data set")
    hub_split: str = "train"
    columns: Columns
    limit: Positive | None = None
    split: Split = Split()


class SeveralData(Strict):
    """Several data sets as one: a pair that stands in two has the opinions of both."""

    kind: Literal["several"]
    license: License | None = None
    parts: Annotated[
        list[Annotated[FileData | HubData, Field(discriminator="kind")]], Field(min_length=2)
    ]
    split: Split = Split()

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
        names = [part_name(part) for part in self.parts]
        if double := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"parts: two are called {double!r}; give each a `name` of its own")
        for i, part in enumerate(self.parts):
            if "split" in part.model_fields_set and part.split != self.split:
                raise ValueError(
                    f"parts.{i}.split: the split is the whole data's; move it to data.split"
                )
        return self


class KnownData(Strict):
    """A known data set (`panacea datasets`), with any key of `file` or `hub` instead of its own.

    It is replaced by what it stands for before a problem is checked (`panacea_lib.problem_known`);
    this class is for the schema that editors read.
    """

    kind: Literal["known"]
    name: str
    license: License | None = None
    path: str = Field(default="", description="a local copy: .jsonl, .jsonl.gz, .csv or .parquet")
    dataset: str = Field(default="", description="another place on the hub, or a directory")
    revision: str = Field(default="main", description="pin a commit: a branch may change")
    subset: str | None = None
    data_dir: str | None = None
    hub_split: str = "train"
    columns: dict[str, Any] = Field(default={}, description="what to read otherwise")
    limit: Positive | None = None
    split: Split = Split()


RealData = FileData | HubData | SeveralData


def parts_of(data: RealData) -> list[FileData | HubData]:
    """The data sets that a problem's data is made of; one is its own only part."""
    return data.parts if isinstance(data, SeveralData) else [data]


def license_of(data: WorldData | RealData) -> str | None:
    """The licence of the data, or the one that all its parts are under."""
    if isinstance(data, SeveralData) and data.license is None:
        licenses = {part.license for part in data.parts}
        return licenses.pop() if len(licenses) == 1 else None
    return data.license


def part_name(part: FileData | HubData) -> str:
    """What a part is called: its name, its file's name without the endings, or its id's end."""
    if part.name is not None:
        return part.name
    if isinstance(part, HubData):
        folder = f" {part.data_dir}" if part.data_dir else ""
        return part.dataset.rstrip("/").rsplit("/", 1)[-1] + folder
    return part.path.rsplit("/", 1)[-1].split(".")[0] or part.path
