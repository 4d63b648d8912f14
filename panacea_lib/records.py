"""The rows that the stages hand each other: plain records, one class per table.

The fields are the columns of `panacea_lib/warehouse/schema.sql`, less the key that the warehouse
adds. All ids are content hashes, so the same text has the same id in every run and file.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    import pyarrow as pa

Side = Literal["train", "validation", "test"]
LabelStatus = Literal["ok", "failed"]
Record = TypeVar("Record")


@dataclass(frozen=True, slots=True)
class PromptRecord:
    """A prompt and the side of the split that its text hashes to."""

    prompt_id: str
    split: Side
    text: str


@dataclass(frozen=True, slots=True)
class PromptTopicRecord:
    """What a prompt is about, where the data says."""

    prompt_id: str
    topic: str


@dataclass(frozen=True, slots=True)
class ResponseRecord:
    """An answer to a prompt; `source` is "reference" (sampled) or "data" (read from a file)."""

    response_id: str
    prompt_id: str
    source: str
    text: str


@dataclass(frozen=True, slots=True)
class PairRecord:
    """Two responses to one prompt, by their ids."""

    pair_id: str
    prompt_id: str
    split: Side
    response_a: str
    response_b: str


@dataclass(frozen=True, slots=True)
class LabelRecord:
    """P(a preferred over b) on one dimension; None only if the status is "failed"."""

    pair_id: str
    dimension: str
    label: float | None
    status: LabelStatus
    source: str
    annotator: str
    confidence: float | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class AnnotationRecord:
    """What one annotator said of one pair on one dimension, once.

    source: the kind of annotator (data, world, people, judge, model, rule); annotator: which one.
    label: P(a preferred over b), None only if the status is "failed"; score_a, score_b: where
    responses are scored one by one; shown_first: "a" or "b" where the order was told to somebody
    whom it may sway.
    """

    pair_id: str
    dimension: str
    source: str
    annotator: str
    label: float | None
    score_a: float | None
    score_b: float | None
    shown_first: str | None
    status: LabelStatus
    reason: str | None


@dataclass(frozen=True, slots=True)
class LabelCostRecord:
    """What the annotations of one source on one dimension took.

    requests: sent in this run; cached: answers that were there already. Tokens and `cost` (in the
    currency of the judge's prices, None without prices) are of all answers, whenever they came.
    """

    dimension: str
    source: str
    annotator: str
    requests: int
    cached: int
    failed: int
    input_tokens: int
    output_tokens: int
    cost: float | None


def content_id(kind: str, *parts: str) -> str:
    """A short hash of the parts; `kind` keeps a prompt and a response of one text apart."""
    digest = hashlib.sha256(kind.encode())
    for part in parts:
        raw = part.encode()
        digest.update(b"%d:" % len(raw))  # lengths, so that ("ab", "c") differs from ("a", "bc")
        digest.update(raw)
    return digest.hexdigest()[:16]


def prompt_id(text: str) -> str:
    """The id of a prompt."""
    return content_id("prompt", text)


def response_id(prompt: str, source: str, text: str) -> str:
    """The id of a response of that source to the prompt of that id."""
    return content_id("response", prompt, source, text)


def pair_id(response_a: str, response_b: str) -> str:
    """The id of a pair of response ids: the same in either order."""
    return content_id("pair", *sorted((response_a, response_b)))


def arrow_schema(record_class: type[Any]) -> "pa.Schema":
    """The table schema of a record class of str, int, float, bool and optional fields."""
    import pyarrow as pa

    types = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    columns = []
    for name, hint in get_type_hints(record_class).items():
        optional = type(None) in get_args(hint)
        plain = next(a for a in get_args(hint) if a is not type(None)) if optional else hint
        base = type(get_args(plain)[0]) if get_origin(plain) is Literal else plain
        columns.append(pa.field(name, types[base], nullable=optional))
    return pa.schema(columns)


def to_table(records: Iterable[Record], record_class: type[Record]) -> "pa.Table":
    """The records as one Arrow table, in their order; an empty list gives an empty table."""
    import pyarrow as pa

    schema = arrow_schema(record_class)
    rows = list(records)
    columns = [
        pa.array([getattr(row, field.name) for row in rows], type=field.type) for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def from_table(table: "pa.Table", record_class: type[Record]) -> list[Record]:
    """The rows of a table that has at least the record's columns; KeyError if one is missing."""
    names = [field.name for field in fields(record_class)]  # pyright: ignore[reportArgumentType]
    columns = [table.column(name).to_pylist() for name in names]
    return [record_class(*values) for values in zip(*columns, strict=True)]
