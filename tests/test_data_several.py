"""Several data sets in one problem, annotators with names, and pairs that others label."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from data_rows import WIDE, labels_of, map_rows, numbered, pair

from panacea_lib.data import load_preference_data, source_fingerprint
from panacea_lib.data.mapping import map_parts
from panacea_lib.data.pairing import Part
from panacea_lib.errors import InputError
from panacea_lib.plan import Plan, is_offline
from panacea_lib.problem_columns import PairColumns
from panacea_lib.problem_data import FileData, SeveralData
from panacea_lib.problem_files import expand_path, load_problem

WARM = {"layout": "pairs", "labels": {"warm": {"preferred": "warm"}}}
SHORT = {"layout": "pairs", "prompt": "q", "labels": {"short": {"a": "short_a", "b": "short_b"}}}
SPLIT = {"validation": 0.3, "test": 0.3}


def jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_two(folder: Path) -> None:
    """Forty prompts each, of which twenty are in both: there the second file has the responses the
    other way round."""
    folder.mkdir(exist_ok=True)
    one = [
        {"prompt": f"p{i}", "response_a": "x", "response_b": "y", "warm": "ab"[i % 2]}
        for i in range(40)
    ]
    two = [
        {"q": f"p{i}", "response_a": "y", "response_b": "x", "short_a": i % 2, "short_b": 0.5}
        for i in range(20, 60)
    ]
    jsonl(folder / "one.jsonl", one)
    jsonl(folder / "two.jsonl", two)


def problem_file(folder: Path, parts: list[dict[str, Any]], **changes: Any) -> Path:
    values = {
        "name": "both",
        "dimensions": [{"name": "warm"}, {"name": "short"}],
        "data": {"kind": "several", "parts": parts, "split": SPLIT},
        "base_model": {"kind": "scratch"},
        **changes,
    }
    path = folder / "both.yaml"
    path.write_text(yaml.safe_dump(json.loads(json.dumps(values))))
    return path


def two_parts() -> list[dict[str, Any]]:
    return [
        {"kind": "file", "path": "one.jsonl", "columns": WARM},
        {"kind": "file", "path": "two.jsonl", "columns": SHORT},
    ]


def test_equal_pairs_of_two_files_merge(tmp_path: Path) -> None:
    write_two(tmp_path)
    path = problem_file(tmp_path, two_parts())
    data = load_preference_data(load_problem(path), path)
    assert data.counts["pairs"] == 60 and data.counts["rows_read"] == 80
    assert data.counts["opinions_merged"] == 20
    assert (data.counts["labels.warm"], data.counts["labels.short"]) == (40, 40)
    assert {name: counts["pairs"] for name, counts in data.part_counts.items()} == {
        "one": 40,
        "two": 20,
    }
    assert {(a.dimension, a.annotator) for a in data.annotations} == {
        ("warm", "one"),
        ("short", "two"),
    }
    labels = {(x.pair_id, x.dimension): x.label for x in labels_of(data)}
    twenty_first = data.pairs[20]  # stands in both: a is better at both, b is short's better
    assert labels[twenty_first.pair_id, "warm"] == 1.0
    assert labels[twenty_first.pair_id, "short"] == 1.0, "two.jsonl says y (its a) is worse"


def test_an_error_names_the_file_of_its_part(tmp_path: Path) -> None:
    write_two(tmp_path)
    rows = [{"q": f"p{i}", "response_a": "y", "response_b": "x"} for i in range(3)]
    jsonl(tmp_path / "two.jsonl", [rows[0] | {"short_a": 0, "short_b": 1}, *rows[1:]])
    path = problem_file(tmp_path, two_parts())
    with pytest.raises(InputError, match=r"two\.jsonl, line 2, column 'short_a'"):
        load_preference_data(load_problem(path), path)
    jsonl(tmp_path / "two.jsonl", [row | {"short_a": 1, "short_b": 1} for row in rows])
    with pytest.raises(InputError, match=r"two\.jsonl, column 'short_a, short_b': no usable"):
        load_preference_data(load_problem(path), path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"kind": "fil"}, r"data\.parts\[1\]\.kind: must be one of file, hub, known"),
        ({"pth": "x"}, r"data\.parts\[1\]\.pth: unknown key \(did you mean 'path'\?\)"),
        ({"split": {"test": 0.2}}, r"parts\.1\.split: the split is the whole data's"),
        ({"name": "one"}, r"two are called 'one'; give each a `name`"),
        ({"columns": {**SHORT, "labels": {"wit": "x"}}}, r"parts\.1\.columns: maps \['wit'\]"),
    ],
)
def test_bad_parts_are_refused(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    one, two = two_parts()
    path = problem_file(tmp_path, [one, {**two, **change}])
    with pytest.raises(InputError, match=says):
        load_problem(path)


def test_the_fingerprint_and_the_plan_follow_the_content(tmp_path: Path) -> None:
    write_two(tmp_path)
    write_two(tmp_path / "elsewhere")
    path = problem_file(tmp_path, two_parts())
    before = Plan.of(load_problem(path), path).key("pairs")
    problem = load_problem(path)
    assert is_offline(problem)
    elsewhere = [{**part, "path": f"elsewhere/{part['path']}"} for part in two_parts()]
    path = problem_file(tmp_path, elsewhere)
    assert Plan.of(load_problem(path), path).key("pairs") == before, "no path is in a key"
    assert source_fingerprint(load_problem(path), path) == source_fingerprint(problem, path)
    path = problem_file(tmp_path, [{**elsewhere[0], "limit": 39}, elsewhere[1]])
    assert Plan.of(load_problem(path), path).key("pairs") != before
    (tmp_path / "two.jsonl").write_bytes((tmp_path / "two.jsonl").read_bytes() + b"\n")
    path = problem_file(tmp_path, two_parts())
    assert Plan.of(load_problem(path), path).key("pairs") != before
    remote = {"kind": "hub", "dataset": "a/b", "columns": SHORT}
    assert not is_offline(load_problem(problem_file(tmp_path, [two_parts()[0], remote])))


def test_inherited_parts_stay_with_their_file(tmp_path: Path, monkeypatch) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir(), theirs.mkdir()
    monkeypatch.setenv("PANACEA_PROBLEMS", f"{ours}:{theirs}")
    problem_file(theirs, two_parts())
    (ours / "child.yaml").write_text("name: child\nextends: both\n")
    problem = load_problem(ours / "child.yaml")
    assert isinstance(problem.data, SeveralData)
    found = [part for part in problem.data.parts if isinstance(part, FileData)]
    assert [expand_path(part.path, ours / "child.yaml") for part in found] == [
        theirs / "one.jsonl",
        theirs / "two.jsonl",
    ]


NAMED = PairColumns(layout="pairs", annotator="who", labels={"warm": "warm", "short": "short"})


def said(who: Any, warm: Any, short: Any = None, swapped: bool = False) -> dict[str, Any]:
    a, b = ("bad", "good") if swapped else ("good", "bad")
    return {**pair("-", a, b, warm, short), "who": who}


def filled(special: list[dict[str, Any]]) -> list[Any]:
    plain = [
        {**said(f"anna {i}", [1, 0], [0, 1]), "prompt": f"p {i}", "id": str(i)} for i in range(30)
    ]
    return numbered([*special, *plain])


def test_annotators_keep_their_names() -> None:
    special = [
        said("anna", [1, 0]),
        said("bert", [1, 0]),  # the same opinion of another person
        said(7, [1, 0], swapped=True),
        said("anna", [0, 1], swapped=True),  # said again
        said("anna", None, [0, 1]),  # on another dimension
    ]
    data = map_rows(filled(special), NAMED, WIDE, "here")
    assert (data.counts["opinions_merged"], data.counts["duplicates_dropped"]) == (3, 1)
    first = [a for a in data.annotations if a.pair_id == data.pairs[0].pair_id]
    assert [(a.annotator, a.dimension, a.label) for a in first] == [
        ("anna", "warm", 1.0),
        ("bert", "warm", 1.0),
        ("7", "warm", 0.0),
        ("anna", "short", 0.0),
    ]
    label = next(x for x in labels_of(data) if x.pair_id == first[0].pair_id)
    assert {label.annotator, label.dimension} <= {"3 annotators", "warm", "anna", "short"}
    parts = [Part(filled(special), NAMED, "here", name, f"{name}/") for name in ("x", "y")]
    both = map_parts(parts, WIDE)
    assert {"x/anna", "y/anna"} <= {a.annotator for a in both.annotations}


def test_one_annotator_does_not_contradict_herself() -> None:
    special = [said("anna", [1, 0]), said("bert", [0, 1]), said("anna", [1, 0], swapped=True)]
    with pytest.raises(InputError) as error:
        map_rows(filled(special), NAMED, WIDE, "here")
    message = str(error.value)
    assert "here, row 3, column 'who': 'anna' prefers otherwise on 'warm' in row 1" in message
    assert "delete one of the two" in message
    with pytest.raises(InputError, match="column 'who': nothing is no annotator; give every row"):
        map_rows(filled([said(None, [1, 0])]), NAMED, WIDE, "here")


def test_pairs_that_others_label_are_kept(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{i}", "response_a": "x y", "response_b": "y"} for i in range(40)]
    jsonl(
        tmp_path / "one.jsonl",
        [{**row, "warm": "a" if i < 5 else None} for i, row in enumerate(rows)],
    )
    part = {"kind": "file", "path": "one.jsonl", "columns": WARM, "split": SPLIT}
    concise = {"short": [{"kind": "length"}]}
    path = problem_file(tmp_path, [], data=part, labels=concise)
    problem = load_problem(path)
    assert problem.keeps_unlabelled and problem.data_dimensions == ["warm"]
    data = load_preference_data(problem, path)
    assert data.counts["pairs"] == 40 and data.counts["labels"] == 5
    bare = {**part, "columns": {"layout": "pairs"}}
    path = problem_file(tmp_path, [], data=bare, labels={**concise, "warm": [{"kind": "people"}]})
    data = load_preference_data(load_problem(path), path)
    assert data.counts["pairs"] == 40 and data.annotations == []
    path = problem_file(tmp_path, [], data=bare, labels=concise)
    with pytest.raises(InputError, match=r"unknown \['warm'\].*source in labels"):
        load_problem(path)


def test_whether_unlabelled_pairs_are_kept_is_in_the_key(tmp_path: Path) -> None:
    write_two(tmp_path)
    path = problem_file(tmp_path, two_parts())
    more = problem_file(tmp_path, two_parts(), labels={"short": [{"kind": "data"}]})
    same = Plan.of(load_problem(more), more).key("pairs")
    assert same == Plan.of(load_problem(path), path).key("pairs")
    labels = {"short": [{"kind": "data"}, {"kind": "length"}]}
    other = problem_file(tmp_path, two_parts(), labels=labels)
    assert Plan.of(load_problem(other), other).key("pairs") != same
