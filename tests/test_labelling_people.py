"""Batches for people: out to a spreadsheet, back with answers, kept, and read as annotations."""

import csv
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from panacea_lib.errors import InputError
from panacea_lib.labelling.people import (
    all_answers,
    answered_by,
    answers_folder,
    choose_pairs,
    file_answers,
    people_annotations,
    people_fingerprint,
)
from panacea_lib.labelling.people_files import COLUMNS, export_batch, read_answers
from panacea_lib.problem_files import find_problems, load_problem_named
from panacea_lib.records import AnnotationRecord, arrow_schema
from panacea_lib.workspace import Workspace

DIMENSIONS = ["tone", "wit"]
PAIRS = pa.table(
    {
        "pair_id": ["9f01", "1234567890123456", "12e4567890123456"],
        "prompt": ["Why?", "=1+1", "naïve, “quoted”; 日本"],
        "response_a": ["- one\n- two  \n", "+1", 'She said "no", twice'],
        "response_b": ["@you\r\nthere", "1/2", "'-x"],
    }
)


def fill(path: Path, cells: dict[tuple[int, str], str], **dialect) -> Path:
    """Open the batch, write the cells (row from 0, column), save it as a spreadsheet would."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for (row, column), value in cells.items():
        rows[row][column] = value
    out = path.with_name(f"filled-{path.name}")
    with out.open("w", encoding=dialect.pop("encoding", "utf-8"), newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, **dialect)
        writer.writeheader()
        writer.writerows(rows)
    return out


@pytest.fixture
def batch(tmp_path) -> Path:
    path = tmp_path / "batch.csv"
    assert export_batch(PAIRS, DIMENSIONS, path) == 6
    return path


ANSWERED = {
    (0, "preferred"): " A ", (0, "annotator"): " Ann  Lee ", (0, "comment"): "clear",
    (1, "preferred"): "0,25", (1, "annotator"): "Ann Lee",
    (2, "preferred"): "Tie", (2, "annotator"): "Bob",
    (5, "preferred"): "b", (5, "annotator"): "Bob",
}  # fmt: skip


def said(path: Path) -> list[tuple]:
    found = read_answers(path, PAIRS, DIMENSIONS).answers
    return [(a.pair_id, a.dimension, a.label, a.annotator, a.comment) for a in found]


EXPECTED = [
    ("9f01", "tone", 1.0, "Ann Lee", "clear"),
    ("9f01", "wit", 0.25, "Ann Lee", ""),
    ("1234567890123456", "tone", 0.5, "Bob", ""),
    ("12e4567890123456", "wit", 0.0, "Bob", ""),
]


# ---- out


def test_a_batch_is_safe_to_open_in_a_spreadsheet(batch):
    assert batch.read_bytes().startswith(b"\xef\xbb\xbf"), "or Excel misreads what is not ASCII"
    with batch.open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert tuple(rows[0]) == COLUMNS
    for cell in (cell for row in rows for cell in row.values()):
        assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert rows[2]["pair_id"] == "'1234567890123456", "which Excel would round"
    assert {row["preferred"] + row["annotator"] + row["comment"] for row in rows} == {""}


def test_an_export_overwrites_nothing(batch, tmp_path):
    with pytest.raises(InputError, match="exists already"):
        export_batch(PAIRS, DIMENSIONS, batch)
    with pytest.raises(InputError, match=r"name it \.csv or \.parquet"):
        export_batch(PAIRS, DIMENSIONS, tmp_path / "batch.xlsx")
    with pytest.raises(InputError, match="no such folder"):
        export_batch(PAIRS, DIMENSIONS, tmp_path / "nowhere" / "batch.csv")


def test_pairs_are_chosen_by_a_hash_and_the_known_come_last():
    ids = [f"p{i}" for i in range(50)]
    chosen = choose_pairs(ids, 10, seed=1)
    assert chosen == choose_pairs(ids[::-1], 10, seed=1) and chosen != ids[:10]
    assert set(chosen) != set(choose_pairs(ids, 10, seed=2))
    known = set(chosen[:5]) | set(ids[:20])
    assert not known & set(choose_pairs(ids, 30 - 5, seed=1, last=known))
    assert sorted(choose_pairs(ids, 99, seed=1, last=known)) == sorted(ids)


# ---- in


@pytest.mark.parametrize(
    "dialect",
    [
        {},
        {"encoding": "utf-8-sig", "lineterminator": "\r\n"},
        {"lineterminator": "\n", "quoting": csv.QUOTE_ALL},
        {"delimiter": ";", "encoding": "utf-8-sig"},
        {"delimiter": "\t"},
    ],
    ids=str,
)
def test_answers_come_back_from_any_spreadsheet(batch, dialect):
    filled = fill(batch, ANSWERED, **dialect)
    assert said(filled) == EXPECTED
    found = read_answers(filled, PAIRS, DIMENSIONS)
    assert (found.unanswered, found.repeated) == (2, 0)
    assert (found.answers[0].place.unit, found.answers[0].place.number) == ("row", 2)


def test_answers_come_back_from_parquet(tmp_path):
    path = tmp_path / "batch.parquet"
    export_batch(PAIRS, DIMENSIONS, path)
    rows = parquet.read_table(path).to_pylist()
    for (row, column), value in ANSWERED.items():
        rows[row][column] = value
    rows[2]["preferred"] = "0.5"
    rows[3]["preferred"] = None
    parquet.write_table(pa.Table.from_pylist(rows), path)
    assert said(path) == EXPECTED
    rows[4] |= {"preferred": "maybe"}
    parquet.write_table(pa.Table.from_pylist(rows), path)
    with pytest.raises(InputError, match=r"batch.parquet, row 5, column 'preferred': 'maybe'"):
        said(path)


def test_what_a_spreadsheet_does_to_texts_is_no_change(batch):
    cells = {
        **ANSWERED,
        (0, "response_a"): "- one\r\n- two\r\n",  # without the apostrophe, other line ends
        (1, "response_b"): "@you\nthere \n",
        (2, "prompt"): "=1+1",
        (2, "pair_id"): "1234567890123456",
    }
    assert said(fill(batch, cells)) == EXPECTED


def test_empty_rows_extra_columns_and_repeats(batch, tmp_path):
    filled = fill(batch, ANSWERED)
    records = list(csv.reader(io.StringIO(filled.read_text("utf-8"), newline="")))
    wide = [[*records[0], "seen by"], *([*row, "me"] for row in records[1:])]
    wide += [wide[1], [""] * len(wide[0])]
    out = tmp_path / "wide.csv"
    with out.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(wide)
        stream.write("\r\n")
    found = read_answers(out, PAIRS, DIMENSIONS)
    assert (len(found.answers), found.unanswered, found.repeated) == (4, 2, 1)


@pytest.mark.parametrize(
    ("cells", "where", "what"),
    [
        ({(1, "pair_id"): "beef"}, "row 3, column 'pair_id'", "no pair 'beef'; check that"),
        ({(2, "pair_id"): "1.23457E+15"}, "row 4, column 'pair_id'", "has made a number of the"),
        ({(0, "prompt"): "Why not?"}, "row 2, column 'prompt'", "not that of pair 9f01 any more"),
        ({(0, "response_b"): ""}, "row 2, column 'response_b'", "export the batch again"),
        ({(0, "dimension"): "ton"}, "row 2, column 'dimension'", "did you mean 'tone'"),
        ({(0, "preferred"): "c"}, "row 2, column 'preferred'", "'c' is no answer; write a, b, t"),
        ({(0, "preferred"): "1.5"}, "row 2, column 'preferred'", "from 0 to 1"),
        ({(0, "preferred"): "nan"}, "row 2, column 'preferred'", "'nan' is no answer"),
        ({(0, "annotator"): "  "}, "row 2, column 'annotator'", "an answer without a name"),
    ],
)
def test_a_bad_row_is_refused_by_place_and_remedy(batch, cells, where, what):
    path = fill(batch, ANSWERED | cells)
    with pytest.raises(InputError) as refused:
        said(path)
    assert f"{path}, {where}: " in str(refused.value) and what in str(refused.value)


def test_one_person_with_two_answers_contradicts_himself(batch):
    cells = {**ANSWERED, (4, "pair_id"): "9f01"}
    cells |= {(4, name): PAIRS[name][0].as_py() for name in ("prompt", "response_a", "response_b")}
    cells |= {(4, "preferred"): "b", (4, "annotator"): "Ann Lee"}
    with pytest.raises(InputError, match=r"row 6, column 'preferred': 'Ann Lee' says b here and"):
        said(fill(batch, cells))
    cells[4, "annotator"] = "Bob"
    assert len(said(fill(batch, cells))) == 5, "another person may say otherwise"


@pytest.mark.parametrize(
    ("old", "new", "said_of_it"),
    [
        (b"preferred", b"prefered", r"row 1, column 'preferred': there is no such column"),
        (b"comment", b"preferred", r"line 1: the header has 'preferred' 2 times"),
        (b"Why", b"\xff", "not UTF-8; save the file as UTF-8"),
        (b'"', b"", "line"),
    ],
)
def test_a_bad_file_is_refused(batch, old, new, said_of_it):
    batch.write_bytes(batch.read_bytes().replace(old, new, 1))
    with pytest.raises(InputError, match=said_of_it) as refused:
        said(batch)
    assert str(batch) in str(refused.value)


def test_another_ending_or_no_file_is_refused(tmp_path):
    (tmp_path / "batch.xlsx").write_bytes(b"PK")
    (tmp_path / "bad.parquet").write_bytes(b"PK")
    for name, match in [
        ("batch.xlsx", "save it as .csv"),
        ("bad.parquet", "not Parquet, or damaged"),
        ("none.csv", "no such file"),
    ]:
        with pytest.raises(InputError, match=match):
            said(tmp_path / name)


text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
risky = text.map(lambda t: t or "x") | st.builds(
    lambda start, rest: start + rest, st.sampled_from([*"=+-@'\t\r\n", "'=", "1e", '"']), text
)


@given(risky, risky, st.sampled_from([",", ";", "\t"]))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_the_text_it_comes_back(tmp_path, one, other, delimiter):
    pairs = pa.table(
        {"pair_id": ["1e5"], "prompt": [one], "response_a": [other], "response_b": [one + other]}
    )
    path = tmp_path / "any.csv"
    path.unlink(missing_ok=True)
    export_batch(pairs, ["tone"], path)
    filled = fill(path, {(0, "preferred"): "1", (0, "annotator"): "x"}, delimiter=delimiter)
    (answer,) = read_answers(filled, pairs, ["tone"]).answers
    assert (answer.pair_id, answer.label) == ("1e5", 1.0)


# ---- kept


def test_answers_are_kept_once(batch, tmp_path):
    folder = tmp_path / "people"
    assert people_fingerprint(folder, "tone") == people_fingerprint(tmp_path, "tone")
    assert people_annotations(folder, "tone", PAIRS).num_rows == 0
    first = read_answers(fill(batch, ANSWERED), PAIRS, DIMENSIONS).answers
    filed = file_answers(folder, first)
    assert (filed.new, filed.known) == (4, 0) and filed.path is not None
    before = filed.path.read_bytes(), people_fingerprint(folder, "tone")
    again = file_answers(folder, first[::-1])
    assert (again.path, again.new, again.known) == (None, 0, 4)
    more = fill(batch, ANSWERED | {(4, "preferred"): "1", (4, "annotator"): "Ann Lee"})
    grown = file_answers(folder, read_answers(more, PAIRS, DIMENSIONS).answers)
    assert (grown.new, grown.known) == (1, 4), "a batch that came back before and after lunch"
    assert filed.path.read_bytes() == before[0] and people_fingerprint(folder, "tone") != before[1]
    assert {path.suffix for path in folder.iterdir() if path.name[0] != "."} == {".parquet"}

    elsewhere = tmp_path / "elsewhere"
    file_answers(elsewhere, read_answers(more, PAIRS, DIMENSIONS).answers)
    assert len(list(elsewhere.glob("*.parquet"))) == 1
    for dimension in DIMENSIONS:
        same = [people_fingerprint(where, dimension) for where in (folder, elsewhere)]
        assert same[0] == same[1], "however the answers came"


def test_who_says_otherwise_later_is_refused(batch, tmp_path):
    folder = tmp_path / "people"
    filed = file_answers(folder, read_answers(fill(batch, ANSWERED), PAIRS, DIMENSIONS).answers)
    path = fill(
        batch, ANSWERED | {(0, "preferred"): "b", (3, "preferred"): "a", (3, "annotator"): "C"}
    )
    with pytest.raises(InputError) as refused:
        file_answers(folder, read_answers(path, PAIRS, DIMENSIONS).answers)
    for part in (str(path), "row 2", "'Ann Lee' says b", f"said a in {filed.path}", "delete"):
        assert part in str(refused.value)
    assert len(all_answers(folder)) == 4, "nothing was written, not even what C said"


def test_answers_are_annotations(batch, tmp_path):
    cells = ANSWERED | {(4, "preferred"): "1", (4, "annotator"): "Ann Lee"}
    file_answers(tmp_path, read_answers(fill(batch, cells), PAIRS, DIMENSIONS).answers)
    found = people_annotations(tmp_path, "tone", PAIRS)
    assert found.schema == arrow_schema(AnnotationRecord)
    rows = [(r["pair_id"], r["annotator"], r["label"], r["reason"]) for r in found.to_pylist()]
    assert rows == [
        ("9f01", "Ann Lee", 1.0, "clear"),
        ("1234567890123456", "Bob", 0.5, None),
        ("12e4567890123456", "Ann Lee", 1.0, None),
    ]
    assert set(found["source"].to_pylist()) == {"people"}
    assert people_annotations(tmp_path, "tone", PAIRS.slice(1, 1)).num_rows == 1
    asked = answered_by(all_answers(tmp_path), "wit")
    assert asked == {"9f01": {"Ann Lee"}, "12e4567890123456": {"Bob"}}


def test_a_file_that_was_changed_is_refused(batch, tmp_path):
    folder = tmp_path / "people"
    filed = file_answers(folder, read_answers(fill(batch, ANSWERED), PAIRS, DIMENSIONS).answers)
    assert filed.path is not None
    table = parquet.read_table(filed.path)
    parquet.write_table(table.slice(1), filed.path)
    with pytest.raises(InputError, match="changed after their import; delete it"):
        people_annotations(folder, "tone", PAIRS)
    parquet.write_table(PAIRS, filed.path)
    with pytest.raises(InputError, match="no file of answers"):
        people_fingerprint(folder, "tone")
    filed.path.write_bytes(b"not Parquet")
    with pytest.raises(InputError, match="no file of answers"):
        all_answers(folder)


def test_the_folder_is_the_problems_or_the_workspaces(tmp_path):
    workspace = Workspace.current()
    problem = load_problem_named(workspace, "tiny")
    file = find_problems(workspace)["tiny"]
    default = answers_folder(problem, file, workspace, "helpfulness")
    assert default == workspace.root / "var" / "people" / "tiny"
    named = {"labels": {"helpfulness": [{"kind": "people", "path": "answers"}]}}
    mine = problem.model_validate(problem.model_dump() | named)
    assert answers_folder(mine, file, workspace, "helpfulness") == file.resolve().parent / "answers"
    assert answers_folder(mine, file, workspace, "harmlessness") == default
