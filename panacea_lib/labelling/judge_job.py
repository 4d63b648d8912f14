"""One judge's work on one dimension: the pairs that come in, and the requests that they take."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from panacea_lib.errors import InputError
from panacea_lib.labelling.rubric import Rubric
from panacea_lib.problem_labelling import Judge
from panacea_lib.problem_types import Strict

if TYPE_CHECKING:
    import pyarrow.parquet as pq

PAIR_COLUMNS = ("pair_id", "prompt", "response_a", "response_b")
_BATCH = 512  # pairs in memory at a time


class JudgeError(RuntimeError):
    """The judge could not be asked any further; all answers so far are kept in the cache."""


class JudgeJob(Strict):
    """What a judge is to label and how.

    annotator: the judge's name in the problem; words in the rubric: `dimension`, `description`.
    temperature: `Scored.temperature`, for rubrics of mode response alone. pairs: a Parquet file
    with the columns `PAIR_COLUMNS`, all text; its row groups are read one at a time. cache: the
    SQLite file of all answers, made where it is not there. run: whatever tells this run from
    others; requests that got no answer are asked again only in another run.
    """

    judge: Judge
    annotator: str
    rubric: Rubric
    dimension: str
    description: str
    temperature: float | None
    pairs: Path
    cache: Path
    run: str = ""


class Pair(NamedTuple):
    """A row of the file of pairs."""

    pair_id: str
    prompt: str
    response_a: str
    response_b: str


class Request(NamedTuple):
    """One question to the judge. key: 32 hexadecimal digits of all that its answer follows from;
    responses: the two in the order in which they are shown, or the one."""

    key: str
    prompt: str
    responses: tuple[str, ...]


class Questions:
    """The two requests of every pair of a job, and what they say to the judge."""

    def __init__(self, job: JudgeJob) -> None:
        self._rubric = job.rubric
        self._words = (job.dimension, job.description)
        judge = job.judge
        # With the texts this is all that a message is made of, and how the model is to answer.
        # Not the endpoint: a model keeps its name when its server moves, and its answers.
        asked = [job.rubric.fingerprint, self._words]
        asked += [judge.model, judge.answer_format, judge.max_answer_tokens]
        self._asked = hashlib.sha256(json.dumps(asked).encode())
        bare = ("",) * (2 if job.rubric.mode == "pair" else 1)
        self._frame = len(job.rubric.render("", bare, self._words))

    def of(self, pair: Pair) -> tuple[Request, Request]:
        """Mode pair: with a shown first, then with b; mode response: on a, then on b."""
        a, b = pair.response_a, pair.response_b
        if self._rubric.mode == "pair":
            return self._request(pair.prompt, a, b), self._request(pair.prompt, b, a)
        return self._request(pair.prompt, a), self._request(pair.prompt, b)

    def message(self, request: Request) -> str:
        """What the judge reads."""
        return self._rubric.render(request.prompt, request.responses, self._words)

    def length(self, request: Request) -> int:
        """The characters of the message, not made."""
        return self._frame + len(request.prompt) + sum(map(len, request.responses))

    def _request(self, prompt: str, *responses: str) -> Request:
        digest = self._asked.copy()
        for text in (prompt, *responses):
            raw = text.encode()
            digest.update(b"%d:" % len(raw))  # lengths, so that ("ab", "c") is not ("a", "bc")
            digest.update(raw)
        return Request(digest.hexdigest()[:32], prompt, responses)


def read_pairs(path: Path) -> Iterator[Pair]:
    """The pairs of a file, some hundreds in memory at a time. InputError as `open_pairs`, or for a
    row without one of its texts."""
    file = open_pairs(path)
    for number, batch in enumerate(file.iter_batches(_BATCH, columns=list(PAIR_COLUMNS))):
        if empty := [name for name in PAIR_COLUMNS if batch.column(name).null_count]:
            row = number * _BATCH + batch.column(empty[0]).is_null().index(True).as_py()
            raise InputError(f"{path}: row {row}, column {empty[0]}: is empty; give it a text")
        columns = [batch.column(name).to_pylist() for name in PAIR_COLUMNS]
        yield from map(Pair._make, zip(*columns, strict=True))


def open_pairs(path: Path) -> "pq.ParquetFile":
    """The file of pairs. InputError: it is missing, is no Parquet, or a column is missing or has
    anything but text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise InputError(f"{path}: no such file; write the pairs to be judged there")
    try:
        file = pq.ParquetFile(path, buffer_size=1 << 20)
    except pa.ArrowInvalid as error:
        raise InputError(f"{path}: is no Parquet file: {error}") from error
    schema = file.schema_arrow
    for name in PAIR_COLUMNS:
        if name not in schema.names:
            raise InputError(f"{path}: the column {name} is missing; it has {schema.names}")
        if not (
            pa.types.is_string(kind := schema.field(name).type) or pa.types.is_large_string(kind)
        ):
            raise InputError(f"{path}: the column {name} is {kind}; it must be text")
    return file
