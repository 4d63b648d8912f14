"""Sources, mapping and split: every format gives the same records; nothing is silently lost."""

import csv
import gzip
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_rows import WIDE, labels_of, map_rows, numbered, pair
from hypothesis import given, settings
from hypothesis import strategies as st

from panacea_lib.data import (
    PreferenceData,
    file_hash,
    load_preference_data,
    source_fingerprint,
    split_of,
)
from panacea_lib.data.cells import Row
from panacea_lib.data.split import split_prompts
from panacea_lib.errors import InputError
from panacea_lib.problem import Problem
from panacea_lib.problem_columns import PairColumns, ResponseColumns
from panacea_lib.problem_data import Split
from panacea_lib.problem_files import load_problem
from panacea_lib.records import (
    LabelRecord,
    PairRecord,
    PromptRecord,
    ResponseRecord,
    arrow_schema,
    from_table,
    pair_id,
    prompt_id,
    response_id,
    to_table,
)
from panacea_lib.workspace import PROJECT_ROOT

SHARED = Path(os.environ.get("PANACEA_SHARED_DATA", PROJECT_ROOT.parent / "shared" / "data"))
PROBLEMS = PROJECT_ROOT / "assets_data" / "problems"
# What readers that guess get wrong: dates, numbers, words for "missing", line ends, commas, quotes.
AWKWARD = ["2024-01-01", "01", "NA", "null", 'say "a, b"', "two\nlines", " led ", "é\u2028λ", "[1]"]


def rows() -> list[dict[str, Any]]:
    """Sixty pairs; warm is sparse, short has ties."""
    return [
        {
            "prompt": f"<extra_id_1>User {i} {AWKWARD[i % 9]}",
            "response_a": AWKWARD[i % 9],
            "response_b": f"{AWKWARD[(i + 1) % 9]} {i}",
            "scores": {"warm": [i % 3, 1.5] if i % 2 else None, "short": [i % 2, 1]},
        }
        for i in range(60)
    ]


def write_jsonl(path: Path) -> None:
    path.write_text("\n".join(map(json.dumps, rows())))  # no last line end, as many tools write


def write_jsonl_gz(path: Path) -> None:
    text = "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows())  # blank lines
    path.write_bytes(gzip.compress(text.encode("utf-8-sig")))


def write_csv(path: Path, n: int = 60) -> None:
    with path.open("w", newline="", encoding="utf-8-sig") as stream:  # with Excel's mark
        writer = csv.DictWriter(stream, list(rows()[0]))
        writer.writeheader()
        writer.writerows({**row, "scores": json.dumps(row["scores"])} for row in rows()[:n])


def write_parquet(path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(rows()), path)


WRITERS: dict[str, Callable[[Path], None]] = {
    "pairs [1]*.jsonl": write_jsonl,  # a name that is also a pattern
    "pairs.jsonl.gz": write_jsonl_gz,
    "pairs.csv": write_csv,
    "pairs.parquet": write_parquet,
}


def problem_of(data: dict[str, Any]) -> Problem:
    columns = {"layout": "pairs", "labels": {"warm": "scores.warm", "short": "scores.short"}}
    return Problem.model_validate(
        {
            "name": "tiny",
            "dimensions": [{"name": "warm"}, {"name": "short"}],
            "data": {"columns": columns, "split": {"validation": 0.2, "test": 0.2}, **data},
            "base_model": {"kind": "scratch"},
        }
    )


def load(name: str, folder: Path, **data: Any) -> PreferenceData:
    WRITERS[name](folder / name)
    problem = problem_of({"kind": "file", "path": name, **data})
    return load_preference_data(problem, folder / "tiny.yaml")


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_records(name: str, tmp_path: Path) -> None:
    data = load(name, tmp_path)
    texts = {response.response_id: response.text for response in data.responses}
    prompts = {prompt.prompt_id: prompt.text for prompt in data.prompts}
    found = [(prompts[p.prompt_id], texts[p.response_a], texts[p.response_b]) for p in data.pairs]
    assert found == [(r["prompt"], r["response_a"], r["response_b"]) for r in rows()]
    labels = {(label.pair_id, label.dimension): label.label for label in labels_of(data)}
    for i, record in enumerate(data.pairs):
        assert labels.get((record.pair_id, "warm")) == (float(i % 3 > 1.5) if i % 2 else None)
        assert labels[record.pair_id, "short"] == (0.5 if i % 2 else 0.0)
    assert data.counts == {
        "rows_read": 60,
        "duplicates_dropped": 0,
        "opinions_merged": 0,
        "identical_dropped": 0,
        "unlabelled_dropped": 0,
        "unpaired_dropped": 0,
        "empty_dropped": 0,
        "dialogues_dropped": 0,
        "prompts": 60,
        "responses": 120,
        "pairs": 60,
        "labels": 90,
        "ties": 30,
        "labels.warm": 30,
        "labels.short": 60,
    }
    assert sorted(p.name for p in tmp_path.iterdir()) == [name]


def test_a_csv_that_went_through_a_spreadsheet(tmp_path: Path) -> None:
    """A mark at its begin, CRLF line ends, and whatever stood inside of the quotes as it was."""
    texts = ["one\r\ntwo", "one\ntwo", 'a "quoted, word"', "TRUE", "007", "1,5"]
    lines = ["prompt,response_a,response_b,warm,short"]
    for i in range(60):
        text = texts[i % len(texts)].replace('"', '""')
        lines.append(f'question {i},"{text}",other,{["a", "b"][i % 2]},{["", "tie", "a"][i % 3]}')
    path = tmp_path / "sheet.csv"
    path.write_bytes("\r\n".join([*lines, ""]).encode("utf-8-sig"))
    labels = {name: {"preferred": name} for name in ("warm", "short")}
    columns = {"layout": "pairs", "labels": labels}
    data = load_preference_data(
        problem_of({"kind": "file", "path": "sheet.csv", "columns": columns}), tmp_path / "t.yaml"
    )
    assert {r.text for r in data.responses} == {*texts, "other"}
    assert (data.counts["labels.warm"], data.counts["labels.short"]) == (60, 40)


def test_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    assert load("pairs.csv", tmp_path).counts["pairs"] == 60
    path = tmp_path / "pairs.csv"
    before = file_hash(path)
    write_csv(path, n=40)
    problem = problem_of({"kind": "file", "path": "pairs.csv"})
    assert load_preference_data(problem, tmp_path / "tiny.yaml").counts["pairs"] == 40
    assert file_hash(path) != before


def test_limit_reads_the_first_rows(tmp_path: Path) -> None:
    whole = load("pairs.parquet", tmp_path)
    part = load("pairs.parquet", tmp_path, limit=40)
    assert part.counts["rows_read"] == 40
    assert part.pairs == whole.pairs[:40]


def test_a_local_directory_as_a_data_set(tmp_path: Path) -> None:
    """What `kind: hub` does after the download, on a directory of data files."""
    (tmp_path / "set").mkdir()
    write_parquet(tmp_path / "set" / "train-00000.parquet")
    problem = problem_of({"kind": "hub", "dataset": "./set"})
    file = tmp_path / "tiny.yaml"
    data = load_preference_data(problem, file)
    assert data == load("pairs.parquet", tmp_path)
    before = source_fingerprint(problem, file)
    write_jsonl(tmp_path / "set" / "notes.txt")
    assert source_fingerprint(problem, file) != before
    for change, says in (
        ({"hub_split": "nope"}, "nope"),
        ({"dataset": "./gone"}, "no such directory"),
    ):
        bad = problem_of({"kind": "hub", "dataset": "./set", **change})
        with pytest.raises(InputError, match=says):
            load_preference_data(bad, file)


def test_the_shipped_hub_mapping_on_a_local_copy(tmp_path: Path) -> None:
    """`smollm2-helpsteer2` on a directory shaped like nvidia/HelpSteer2."""
    shipped = load_problem(PROBLEMS / "smollm2-helpsteer2.yaml")
    graded = [
        {
            "prompt": f"question {i // 2}",
            "response": f"answer {i}",
            **{name: (i * i + j) % 5 for j, name in enumerate(shipped.dimension_names)},
        }
        for i in range(120)
    ]
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.jsonl").write_text("\n".join(map(json.dumps, graded)))
    data = shipped.data.model_copy(update={"dataset": str(tmp_path / "set")})
    problem = shipped.model_copy(update={"data": data})
    counts = load_preference_data(problem, PROBLEMS / "smollm2-helpsteer2.yaml").counts
    assert (counts["rows_read"], counts["pairs"], counts["labels.verbosity"]) == (120, 60, 60)


def test_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    file = tmp_path / "tiny.yaml"
    (tmp_path / "other").mkdir()
    for name in ("one.jsonl", "other/two.jsonl"):
        write_jsonl(tmp_path / name)
    one, two = (
        source_fingerprint(problem_of({"kind": "file", "path": name}), file)
        for name in ("one.jsonl", "other/two.jsonl")
    )
    assert one == two
    hub = [
        source_fingerprint(problem_of({"kind": "hub", "dataset": "a/b", "revision": r}), file)
        for r in ("main", "1234")
    ]
    assert len({one, *hub}) == 3
    assert source_fingerprint(load_problem(PROBLEMS / "demo.yaml"), PROBLEMS / "demo.yaml")
    with pytest.raises(TypeError, match="embedded world"):
        load_preference_data(load_problem(PROBLEMS / "demo.yaml"), PROBLEMS / "demo.yaml")


PAIRS = PairColumns(layout="pairs", id="id", labels={"warm": "warm", "short": "short"})


def padded(special: list[dict[str, Any]]) -> list[Row]:
    """The special rows and thirty plain ones, so that the split has three sides."""
    plain = [
        {"id": f"plain {i}", "prompt": f"p {i}", "response_a": "x", "response_b": "y"}
        for i in range(30)
    ]
    labels = {"warm": [1, 0], "short": [0, 1]}
    return numbered([*special, *({**row, **labels} for row in plain)])


def test_duplicates_swaps_and_opinions() -> None:
    special = [
        pair("1", "good", "bad", [3, 1]),
        pair("2", "good", "bad", [3, 1]),  # the same again
        pair("3", "bad", "good", [0, 2]),  # the same, swapped
        pair("4", "bad", "good", [2, 0]),  # another opinion
        pair("1", "good", "bad", None, [1, 0]),  # the same pair under its id: more labels
        pair("5", "same", "same", [1, 0]),
        pair("6", "good", "other", None),
    ]
    data = map_rows(padded(special), PAIRS, WIDE, "here")
    assert {k: n for k, n in data.counts.items() if k.endswith(("dropped", "merged"))} == {
        "duplicates_dropped": 2,
        "opinions_merged": 2,
        "identical_dropped": 1,
        "unlabelled_dropped": 1,
        "unpaired_dropped": 0,
        "empty_dropped": 0,
        "dialogues_dropped": 0,
    }
    assert data.counts["pairs"] == 31 and data.counts["rows_read"] == 37
    q = prompt_id("q")
    ids = [response_id(q, "data", text) for text in ("good", "bad")]
    assert (data.pairs[0].response_a, data.pairs[0].response_b) == tuple(ids)
    assert data.pairs[0].pair_id == pair_id(ids[1], ids[0])
    labels = {x.dimension: x.label for x in labels_of(data) if x.pair_id == data.pairs[0].pair_id}
    assert labels == {"warm": 0.5, "short": 1.0}


def test_consecutive_responses_become_pairs() -> None:
    columns = ResponseColumns(layout="responses", scores={"warm": "warm", "short": "short"})
    special = [
        {"prompt": "q", "response": "r1", "warm": 3, "short": 0},
        {"prompt": "q", "response": "r2", "warm": 1, "short": None},
        {"prompt": "q", "response": "r3", "warm": 3, "short": 2},
        {"prompt": "alone", "response": "r", "warm": 3, "short": 2},
    ]
    plain = [
        {"prompt": f"p{i // 2}", "response": f"r{i}", "warm": i % 2, "short": i % 2}
        for i in range(60)
    ]
    data = map_rows(numbered(special + plain), columns, WIDE, "here")
    q = prompt_id("q")
    of_q = {p.pair_id for p in data.pairs if p.prompt_id == q}
    found = [(x.dimension, x.label) for x in labels_of(data) if x.pair_id in of_q]
    assert found == [("short", 0.0), ("warm", 1.0), ("warm", 0.5), ("warm", 0.0)]
    assert data.counts["unpaired_dropped"] == 1 and data.counts["rows_read"] == 64
    unsorted = [{**row, "prompt": row["response"]} for row in plain]
    with pytest.raises(InputError, match="sort the rows by prompt"):
        map_rows(numbered(unsorted), columns, WIDE, "here")


def test_preferred_words_and_probabilities() -> None:
    labels = {"warm": {"preferred": "warm"}, "short": {"preferred": "short"}}
    columns = PairColumns.model_validate({"layout": "pairs", "labels": labels})
    values = ["a", "b", "tie", 0.25, 1, None]
    special = [pair(str(i), f"a{i}", f"b{i}", value) for i, value in enumerate(values)]
    plain = [(place, {**row, "warm": "a", "short": "b"}) for place, row in padded([])]
    data = map_rows([*numbered(special), *plain], columns, WIDE, "here")
    found = [x.label for x in labels_of(data) if x.dimension == "warm"]
    assert found[:5] == [1.0, 0.0, 0.5, 0.25, 1.0]
    assert data.counts["unlabelled_dropped"] == 1


@settings(max_examples=40, deadline=None)
@given(
    texts=st.lists(st.text(min_size=1).filter(str.strip), min_size=3, max_size=60),
    validation=st.floats(0.01, 0.49),
    test=st.floats(0.01, 0.49),
)
def test_no_prompt_is_on_two_sides(texts: list[str], validation: float, test: float) -> None:
    split = Split(validation=validation, test=test)
    expected = {text: split_of(text, split) for text in texts}
    assert all(split_of(f" {text}\n", split) == side for text, side in expected.items())
    if set(expected.values()) == {"train", "validation", "test"}:
        assert split_prompts(texts, split, "here") == expected
    else:
        with pytest.raises(InputError, match=r"here: (none of the|all rows)"):
            split_prompts(texts, split, "here")


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 12),
            st.integers(0, 3),
            st.integers(0, 3),
            st.sampled_from([None, [0, 1], [1, 0], [1, 1]]),
        ),
        max_size=40,
    )
)
def test_records_are_consistent(drawn: list[tuple]) -> None:
    """Whatever the rows: ids resolve and are unique, and a pair is on its prompt's side."""
    special = [
        {**pair(f"{p} {a} {b} {i}", f"r{a}", f"r{b}", warm), "prompt": f"drawn {p}"}
        for i, (p, a, b, warm) in enumerate(drawn)
    ]
    data = map_rows(padded(special), PAIRS, WIDE, "here")
    prompts = {prompt.prompt_id: prompt for prompt in data.prompts}
    responses = {response.response_id: response for response in data.responses}
    pairs = {record.pair_id: record for record in data.pairs}
    assert len(prompts) == len(data.prompts)
    assert len(responses) == len(data.responses)
    assert len(pairs) == len(data.pairs)
    assert len({(x.pair_id, x.dimension) for x in labels_of(data)}) == len(labels_of(data))
    assert {x.pair_id for x in labels_of(data)} == set(pairs)
    for record in data.pairs:
        assert record.split == prompts[record.prompt_id].split
        assert responses[record.response_a].prompt_id == record.prompt_id
        assert responses[record.response_b].prompt_id == record.prompt_id
    dropped = sum(n for k, n in data.counts.items() if k.endswith(("_dropped", "_merged")))
    assert data.counts["rows_read"] == data.counts["pairs"] + dropped


def test_split_is_the_same_for_good() -> None:
    """A golden draw: were it to change, every committed figure would change with it."""
    split = Split(validation=0.25, test=0.25)
    sides = "".join(split_of(f"prompt {i}", split)[:2] for i in range(16))
    assert sides == "trtrtrtrvatrtrvatrtrvatrtrvavatr"
    assert prompt_id("prompt 0") == "7be20b4b58e3163d"


def test_records_survive_arrow_and_match_the_warehouse(tmp_path: Path) -> None:
    data = load("pairs.parquet", tmp_path)
    sql = (PROJECT_ROOT / "panacea_lib" / "warehouse" / "schema.sql").read_text()
    failed = LabelRecord("p", "warm", None, "failed", "judge", "model", 0.5, "no answer")
    for table, records, record_class in (
        ("prompts", data.prompts, PromptRecord),
        ("responses", data.responses, ResponseRecord),
        ("pairs", data.pairs, PairRecord),
        ("preference_labels", [*labels_of(data), failed], LabelRecord),
    ):
        assert from_table(to_table(records, record_class), record_class) == records
        assert to_table([], record_class).schema == arrow_schema(record_class)
        statement = sql.split(f"facts.{table} (")[1].split(");")[0]
        assert all(f"{name} " in statement for name in asdict(records[0]))


def test_helpsteer2(monkeypatch) -> None:
    """The real file: every row is used, and its sparse labels are counted as its README says."""
    path = SHARED / "helpsteer2_pairs.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"{path} is absent (set PANACEA_SHARED_DATA to a folder that has it)")
    problem = load_problem(PROBLEMS / "helpsteer2-tiny.yaml")
    monkeypatch.setenv("HELPSTEER2_PAIRS", str(path))
    data = load_preference_data(problem, PROBLEMS / "helpsteer2-tiny.yaml")
    assert data.counts["rows_read"] == data.counts["pairs"] == 4738
    per_pair: dict[str, list[float | None]] = {}
    for label in labels_of(data):
        per_pair.setdefault(label.pair_id, []).append(label.label)
    share = sum(len(labels) > 1 for labels in per_pair.values()) / len(per_pair)
    conflicts = sum({0.0, 1.0} <= set(labels) for labels in per_pair.values()) / len(per_pair)
    assert (round(share, 2), round(conflicts, 2)) == (0.38, 0.18)
    assert any("<extra_id_1>" in prompt.text for prompt in data.prompts)
