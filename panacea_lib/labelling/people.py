"""People's answers: which pairs to ask of, where the answers are kept, and what they say.

Answers lie in a folder, one Parquet file per import. A file is never changed: its name is the hash
of what it says.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
from filelock import FileLock

from panacea_lib.disk import fsync
from panacea_lib.errors import InputError
from panacea_lib.labelling.people_files import Answer, show_label
from panacea_lib.problem import Problem
from panacea_lib.problem_files import expand_path
from panacea_lib.problem_labelling import PeopleLabels
from panacea_lib.records import AnnotationRecord, to_table
from panacea_lib.workspace import Workspace

_SCHEMA = pa.schema(
    [
        ("pair_id", pa.string()),
        ("dimension", pa.string()),
        ("annotator", pa.string()),
        ("label", pa.float64()),
        ("comment", pa.string()),
    ]
)
Said = tuple[str, str, str, float, str]  # a row of _SCHEMA
_Who = tuple[str, str, str]  # its first three: who said it of what


@dataclass(frozen=True)
class Filed:
    """What became of a batch: the new file, None where all was there; answers new and old."""

    path: Path | None
    new: int
    known: int


def answers_folder(
    problem: Problem, problem_file: Path, workspace: Workspace, dimension: str
) -> Path:
    """Where the answers on a dimension are kept; it need not be there yet."""
    for source in problem.label_sources(dimension):
        if isinstance(source, PeopleLabels) and source.path is not None:
            return expand_path(source.path, problem_file)
    return workspace.root / "var" / "people" / problem.name


def choose_pairs(
    pair_ids: Sequence[str], count: int, seed: int, last: Collection[str] = ()
) -> list[str]:
    """At most `count` of the pairs, by a hash of seed and id; those in `last` only at the end."""
    after = set(last)

    def place(pair_id: str) -> tuple[bool, bytes]:
        return pair_id in after, hashlib.sha256(f"{seed} {pair_id}".encode()).digest()

    return sorted(pair_ids, key=place)[:count]


# ---- keeping


def file_answers(folder: Path, answers: Sequence[Answer]) -> Filed:
    """Keep the answers that are not there yet, in one new file; all of them or none.

    InputError where somebody has answered otherwise before; then nothing is written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        new = new_answers(folder, answers)
        known = len(answers) - len(new)
        if not new:
            return Filed(None, 0, known)
        rows = sorted(_said(answer) for answer in new)
        path = folder / f"{_hash(rows)}.parquet"
        aside = folder / f".{path.name}.partial"
        columns = [list(column) for column in zip(*rows, strict=True)]
        parquet.write_table(pa.table(columns, schema=_SCHEMA), aside)
        fsync(aside)
        aside.replace(path)
        fsync(folder)
    return Filed(path, len(new), known)


def new_answers(folder: Path, answers: Sequence[Answer]) -> list[Answer]:
    """Those that the folder does not hold; InputError where it holds another by the same person."""
    before = {said[:3]: (said[3], path) for path, rows in _files(folder).items() for said in rows}
    new = []
    for answer in answers:
        label, path = before.get(_said(answer)[:3], (None, None))
        if label is None:
            new.append(answer)
        elif label != answer.label:
            raise answer.place.error(
                "preferred",
                f"{answer.annotator!r} says {show_label(answer.label)} of pair {answer.pair_id} on "
                f"{answer.dimension}, and said {show_label(label)} in {path}",
                "write the earlier answer or empty the cell; to take the earlier one back, delete "
                "that file and import its batch again, mended",
            )
    return new


def _said(answer: Answer) -> Said:
    who = (answer.pair_id, answer.dimension, answer.annotator)
    return (*who, answer.label, answer.comment)


# ---- reading


def people_annotations(folder: Path, dimension: str, pairs: pa.Table) -> pa.Table:
    """What people have said of these pairs: columns of `AnnotationRecord`.

    In the pairs' order, then the annotators'. Answers on pairs that are no longer there are left
    out; no folder is no answers. InputError where a file of the folder is not one of ours.
    """
    position = {pair: i for i, pair in enumerate(pairs["pair_id"].to_pylist())}
    said = [row for row in all_answers(folder) if row[1] == dimension and row[0] in position]
    said.sort(key=lambda row: (position[row[0]], row[2]))
    records = [
        AnnotationRecord(
            pair_id=pair,
            dimension=dimension,
            source="people",
            annotator=annotator,
            label=label,
            score_a=None,
            score_b=None,
            shown_first="a",  # a batch has a before b in every row
            status="ok",
            reason=comment or None,
        )
        for pair, _, annotator, label, comment in said
    ]
    return to_table(records, AnnotationRecord)


def people_fingerprint(folder: Path, dimension: str) -> str:
    """The hash of all answers on a dimension, however they are spread over files."""
    return _hash([row for row in all_answers(folder) if row[1] == dimension])


def all_answers(folder: Path) -> list[Said]:
    """Every answer once, sorted; [] where there is no folder. InputError for a foreign file."""
    return sorted({row for rows in _files(folder).values() for row in rows})


def answered_by(said: Sequence[Said], dimension: str) -> Mapping[str, set[str]]:
    """pair id → who has answered it on that dimension."""
    found: dict[str, set[str]] = {}
    for pair, name, annotator, _, _ in said:
        if name == dimension:
            found.setdefault(pair, set()).add(annotator)
    return found


def _files(folder: Path) -> dict[Path, list[Said]]:
    return {path: _read(path) for path in sorted(folder.glob("[!.]*.parquet"))}


def _read(path: Path) -> list[Said]:
    remedy = "delete it and import its batch again"
    try:
        table = parquet.read_table(path)
    except (pa.ArrowException, OSError) as error:
        said = str(error).splitlines()[0]
        raise InputError(f"{path}: this is no file of answers ({said}); {remedy}") from error
    if not table.schema.equals(_SCHEMA):
        raise InputError(f"{path}: this is no file of answers, or of another version; {remedy}")
    rows = [tuple(row.values()) for row in table.to_pylist()]
    if _hash(rows) != path.stem:
        raise InputError(f"{path}: the answers were changed after their import; {remedy}")
    return rows  # pyright: ignore[reportReturnType]


def _hash(rows: Sequence[Said]) -> str:
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:32]
