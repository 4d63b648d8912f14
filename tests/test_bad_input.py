"""Bad input, one row each: refused with file, row, column and remedy, and nothing written."""

import csv
import gzip
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from panacea_lib.data import load_preference_data
from panacea_lib.errors import InputError
from panacea_lib.problem_files import find_problems, load_problem
from panacea_lib.workspace import Workspace

Change = Callable[[dict[str, Any]], Any]
NESTED = {"warm": "scores.warm", "short": "scores.short"}
FLAT = {"warm": {"a": "warm_a", "b": "warm_b"}, "short": {"preferred": "short"}}


def problem(**changes: Any) -> dict[str, Any]:
    """A good problem of two dimensions; `changes` replace its keys, None deletes one."""
    values = {
        "name": "bad",
        "dimensions": [{"name": "warm"}, {"name": "short"}],
        "data": {
            "kind": "file",
            "path": "bad.jsonl",
            "columns": {"layout": "pairs", "id": "id", "labels": NESTED},
        },
        "base_model": {"kind": "scratch"},
    }
    return {key: value for key, value in {**values, **changes}.items() if value is not None}


def dump(values: dict[str, Any]) -> str:
    """YAML without aliases, which PyYAML writes for an object that stands twice."""
    return yaml.safe_dump(json.loads(json.dumps(values)))


def rows(change: Change | None = None, at: int = 7, n: int = 40) -> list[dict[str, Any]]:
    """Good rows for `NESTED` and `FLAT`; `change` spoils the one on line (or row) `at`."""
    good = [
        {
            "id": f"p{i}",
            "prompt": f"question {i}",
            "response_a": f"answer {i}",
            "response_b": f"other answer {i}",
            "scores": {"warm": [i % 3, 1], "short": [1, 0]},
            "warm_a": i % 3,
            "warm_b": 1,
            "short": 0.25,
        }
        for i in range(n)
    ]
    if change:
        change(good[at - 1])
    return good


def jsonl(data: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in data).encode()


def csv_text(data: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    flat = [{k: v for k, v in row.items() if k != "scores"} for row in data]
    writer = csv.DictWriter(text, list(flat[0]))
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue().encode()


def parquet(data: list[dict[str, Any]]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(data), sink)
    return sink.getvalue()


def parquet_schema_only() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows())[:0], sink)
    return sink.getvalue()


def parquet_with_bytes(text: bytes) -> bytes:
    """Row 7 has a text column of these bytes, which Parquet stores without a look at them."""
    table = pa.Table.from_pylist(rows())
    prompts = [row["prompt"].encode() for row in rows()]
    prompts[6] = text
    column = pa.array(prompts, pa.binary()).view(pa.string())
    sink = io.BytesIO()
    pq.write_table(table.set_column(1, "prompt", column), sink)
    return sink.getvalue()


def put(**fields: Any) -> Change:
    return lambda row: row.update(fields)


def drop(name: str) -> Change:
    return lambda row: row.pop(name)


def set_score(value: Any) -> Change:
    return lambda row: row["scores"].update(warm=value)


def each(change: Change) -> list[dict[str, Any]]:
    """Good rows, all changed."""
    data = rows()
    for row in data:
        change(row)
    return data


@dataclass
class Bad:
    """A data file's name and bytes (None: no such file), and what the message must say."""

    name: str
    content: bytes | None
    says: list[str]
    labels: dict[str, Any] | None = None  # the mapping; NESTED if not given


GOOD = jsonl(rows())
L7 = "bad.jsonl, line 7"
DATA: dict[str, Bad] = {
    "file missing": Bad("bad.jsonl", None, ["bad.jsonl", "does not exist", "mend data.path"]),
    "file empty": Bad("bad.jsonl", b"", ["bad.jsonl", "is empty", "needs a row per"]),
    "gzip empty": Bad("bad.jsonl.gz", gzip.compress(b""), ["bad.jsonl.gz", "is empty"]),
    "CSV of a header": Bad(
        "bad.csv", csv_text(rows()).splitlines()[0], ["bad.csv", "no rows", "needs a row"], FLAT
    ),
    "Parquet without rows": Bad(
        "bad.parquet", parquet_schema_only(), ["bad.parquet", "no rows", "needs a row"]
    ),
    "Parquet text not UTF-8": Bad(
        "bad.parquet",
        parquet_with_bytes(b"question \xe9"),
        ["bad.parquet, row 7", "'prompt'", "not UTF-8", "write the file as UTF-8"],
    ),
    "CSV cell not JSON": Bad(
        "bad.csv",
        csv_text(rows(put(warm_a="{1"))),
        ["bad.csv, line 8", "'warm_a'", "not JSON", "write a number"],
        FLAT,
    ),
    "unknown ending": Bad("bad.txt", GOOD, ["bad.txt", "ending", "convert it to one of .jsonl"]),
    "not JSON": Bad(
        "bad.jsonl", GOOD.replace(b'{"id": "p6"', b'{"id" "p6"'), [L7, "not JSON", "one object"]
    ),
    "a JSON list": Bad("bad.jsonl", GOOD + b"[1]\n", ["bad.jsonl, line 41", "a list", "write one"]),
    "JSON key twice": Bad(
        "bad.jsonl", GOOD.replace(b'"p6"', b'"p6", "id": "x"'), [L7, "stands twice", "write one"]
    ),
    "JSONL called CSV": Bad("bad.csv", GOOD, ["bad.csv, row 1", "no such column", "mend"], FLAT),
    "CSV called Parquet": Bad("bad.parquet", csv_text(rows()), ["bad.parquet", "not Parquet"]),
    "CSV called gzip": Bad("bad.jsonl.gz", csv_text(rows()), ["bad.jsonl.gz", "not gzip", "drop"]),
    "gzip called JSONL": Bad("bad.jsonl", gzip.compress(GOOD), ["bad.jsonl", "is gzip", "add .gz"]),
    "truncated gzip": Bad(
        "bad.jsonl.gz", gzip.compress(GOOD)[:-40], ["bad.jsonl.gz", "line ", "cut off", "again"]
    ),
    "damaged gzip": Bad(
        "bad.jsonl.gz",
        gzip.compress(GOOD)[:60] + b"\xff" * 20 + gzip.compress(GOOD)[80:],
        ["bad.jsonl.gz", "line ", "damaged", "copy it again"],
    ),
    "truncated Parquet": Bad(
        "bad.parquet", parquet(rows())[:-30], ["bad.parquet", "not Parquet, or damaged", "again"]
    ),
    "CSV ragged": Bad(
        "bad.csv",
        csv_text(rows()).replace(b"question 6,", b"question, 6,"),
        ["bad.csv, line 8", "8 fields", "header has 7", "quote"],
        FLAT,
    ),
    "CSV quote open": Bad(
        "bad.csv", csv_text(rows()) + b'"x,', ["bad.csv, line 42", "not CSV", "quote fields"], FLAT
    ),
    "CSV column twice": Bad(
        "bad.csv",
        csv_text(rows()).replace(b"warm_b", b"warm_a"),
        ["bad.csv, line 1", "'warm_a' 2 times", "its own name"],
        FLAT,
    ),
    "CSV of another country": Bad(
        "bad.csv",
        csv_text(rows()).replace(b",", b";"),
        ["bad.csv, line 1", "parted by semicolons", "save the file as comma-separated"],
        FLAT,
    ),
    "CSV of tabs": Bad(
        "bad.csv",
        csv_text(rows()).replace(b",", b"\t"),
        ["bad.csv, line 1", "parted by tabs"],
        FLAT,
    ),
    "CSV with a blank record": Bad(
        "bad.csv",
        csv_text(rows()) + b",,,,,,\r\n",
        ["bad.csv, line 42", "is no id", "give every row one"],
        FLAT,
    ),
    "CSV with a renamed column": Bad(
        "bad.csv",
        csv_text(rows()).replace(b"warm_b", b"Warm B"),
        ["bad.csv, row 1", "'warm_b'", "there are 'id', 'prompt'", "'Warm B'", "mend data.columns"],
        FLAT,
    ),
    "a value that is not mapped": Bad(
        "bad.jsonl",
        jsonl(rows(put(short=2))),
        [L7, "'short'", "holds 2", "one of '0.25', '1'", "add it to the column's `values`"],
        {**FLAT, "short": {"preferred": "short", "values": {"0.25": "b", "1": "a"}}},
    ),
    "beyond the scale": Bad(
        "bad.jsonl",
        jsonl(rows(put(short=-9))),
        [L7, "'short'", "-9 lies beyond the scale 3", "mend the value"],
        {**FLAT, "short": {"strength": "short", "scale": 3, "positive": "b"}},
    ),
    "row without a text column": Bad(
        "bad.jsonl", jsonl(rows(drop("response_b"))), [L7, "'response_b'", "no such column", "add"]
    ),
    "row without a score column": Bad(
        "bad.jsonl", jsonl(rows(drop("scores"))), [L7, "'scores'", "no such column", "null where"]
    ),
    "CSV without a column": Bad(
        "bad.csv",
        csv_text(each(drop("warm_b"))),
        ["bad.csv", "row 1", "'warm_b'", "mend data.columns"],
        FLAT,
    ),
    "Parquet without a column": Bad(
        "bad.parquet",
        parquet(each(drop("prompt"))),
        ["bad.parquet", "row 1", "'prompt'", "mend data.columns"],
    ),
    "number for a text": Bad(
        "bad.jsonl", jsonl(rows(put(prompt=5))), [L7, "'prompt'", "holds 5, not text", "write text"]
    ),
    "null for a text": Bad(
        "bad.jsonl", jsonl(rows(put(response_a=None))), [L7, "'response_a'", "nothing", "write"]
    ),
    "Parquet of numbers": Bad(
        "bad.parquet",
        parquet(each(put(prompt=5))),
        ["bad.parquet, row 1", "'prompt'", "holds 5, not text", "write text"],
    ),
    "text empty after stripping": Bad(
        "bad.jsonl", jsonl(rows(put(response_a=" \n\t"))), [L7, "'response_a'", "empty", "drop"]
    ),
    "CSV text empty": Bad(
        "bad.csv",
        csv_text(rows(put(response_a=""))),
        ["bad.csv, line 8", "'response_a'", "empty", "drop"],
        FLAT,
    ),
    "half a surrogate pair": Bad(
        "bad.jsonl", jsonl(rows(put(prompt="\ud800"))), [L7, "'prompt'", "surrogate", "write valid"]
    ),
    "score a word": Bad(
        "bad.jsonl", jsonl(rows(set_score(["good", 1]))), [L7, "'scores.warm'", "not a number"]
    ),
    "score a truth value": Bad(
        "bad.jsonl", jsonl(rows(set_score([True, 1]))), [L7, "'scores.warm'", "not a number"]
    ),
    "score infinite": Bad(
        "bad.jsonl",
        jsonl(rows(set_score([float("inf"), 1]))),
        [L7, "'scores.warm'", "inf is not a finite number", "null if unknown"],
    ),
    "score NaN": Bad(
        "bad.jsonl",
        jsonl(rows(set_score([float("nan"), 1]))),
        [L7, "'scores.warm'", "not a finite"],
    ),
    "score too long": Bad(
        "bad.jsonl", jsonl(rows(set_score([10**400, 1]))), [L7, "'scores.warm'", "not a finite"]
    ),
    "one score for two responses": Bad(
        "bad.jsonl", jsonl(rows(set_score(3))), [L7, "'scores.warm'", "holds 3", "[score of a,"]
    ),
    "CSV score a word": Bad(
        "bad.csv",
        csv_text(rows(put(warm_a="good"))),
        ["bad.csv, line 8", "'warm_a'", "'good' is not a number", "null if unknown"],
        FLAT,
    ),
    "CSV score infinite": Bad(
        "bad.csv",
        csv_text(rows(put(warm_b="inf"))),
        ["bad.csv, line 8", "'warm_b'", "not a finite number"],
        FLAT,
    ),
    "Parquet score infinite": Bad(
        "bad.parquet",
        parquet(each(put(warm_a=float("inf")))),
        ["bad.parquet, row 1", "'warm_a'", "not a finite number"],
        FLAT,
    ),
    "preferred no probability": Bad(
        "bad.jsonl", jsonl(rows(put(short=1.5))), [L7, "'short'", "no probability", "0 to 1"], FLAT
    ),
    "preferred an unknown word": Bad(
        "bad.jsonl", jsonl(rows(put(short="A"))), [L7, "'short'", "'A'", '"a", "b", "tie"'], FLAT
    ),
    "one id on two pairs": Bad(
        "bad.jsonl", jsonl(rows(put(id="p2"))), [L7, "column 'id'", "'p2'", "line 3", "give each"]
    ),
    "no id": Bad("bad.jsonl", jsonl(rows(put(id=None))), [L7, "'id'", "no id", "give every row"]),
    "a byte that is not UTF-8": Bad(
        "bad.jsonl",
        GOOD.replace(b"question 6", b"question \xe9"),
        [L7, "0xe9", "position", "save the file as UTF-8"],
    ),
    "CSV in another encoding": Bad(
        "bad.csv",
        csv_text(rows(put(prompt="é"))).decode().encode("latin-1"),
        ["bad.csv, line 8", "0xe9", "save the file as UTF-8"],
        FLAT,
    ),
    "UTF-16": Bad("bad.csv", csv_text(rows()).decode().encode("utf-16"), ["bad.csv, line 1"], FLAT),
    "no label for a dimension": Bad(
        "bad.jsonl",
        jsonl(each(set_score(None))),
        ["bad.jsonl", "'scores.warm'", "no usable label for the dimension 'warm'", "add labels"],
    ),
    "only ties for a dimension": Bad(
        "bad.jsonl",
        jsonl(each(set_score([2, 2]))),
        ["bad.jsonl", "'scores.warm'", "no usable label", "add labels"],
    ),
    "a nested name misspelt": Bad(
        "bad.jsonl",
        GOOD,
        ["bad.jsonl", "'scores.wram'", "no usable label", "mend data.columns"],
        {**NESTED, "warm": "scores.wram"},
    ),
    "no label at all": Bad(
        "bad.jsonl",
        jsonl(each(put(scores={}))),
        ["bad.jsonl", "'scores.warm'", "40 unlabelled_dropped", "add scores"],
    ),
    "one prompt only": Bad(
        "bad.jsonl",
        jsonl(each(put(prompt="always this"))),
        ["bad.jsonl", "line 1", "'prompt'", "one and the same prompt", "add rows with other"],
    ),
    "an empty side of the split": Bad(
        "bad.jsonl",
        jsonl(rows(n=2)),
        ["bad.jsonl", "'prompt'", "of the 2 different", "add prompts"],
    ),
}


@pytest.mark.parametrize("case", DATA.values(), ids=list(DATA))
def test_bad_data(case: Bad, tmp_path: Path) -> None:
    columns = {"layout": "pairs", "id": "id", "labels": case.labels or NESTED}
    values = problem(data={"kind": "file", "path": case.name, "columns": columns})
    path = tmp_path / "bad.yaml"
    path.write_text(dump(values))
    if case.content is not None:
        (tmp_path / case.name).write_bytes(case.content)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError) as error:
        load_preference_data(load_problem(path), path)
    message = str(error.value)
    assert all(part in message for part in [str(tmp_path / case.name), *case.says]), message
    assert "\n" not in message
    assert sorted(tmp_path.rglob("*")) == before


DIMENSIONS = [{"name": "warm"}, {"name": "short"}]
WORLD = {"kind": "world"}
# Per row: the problem's values (or the file's raw text), and what the message must say.
PROBLEMS: dict[str, tuple[dict[str, Any] | bytes, list[str]]] = {
    "unknown key": (problem(seeed=3), ["line", "seeed", "unknown key", "did you mean 'seed'?"]),
    "unknown nested key": (
        problem(training={"stepss": 3}),
        ["line", "training.stepss", "did you mean 'steps'?", "rename or delete"],
    ),
    "unknown key of a kind": (
        problem(data={**problem()["data"], "pth": "x"}),
        ["line", "data.pth", "did you mean 'path'?"],
    ),
    "unknown key of another kind": (
        problem(data={**WORLD, "path": "x"}, dimensions=[{"name": "helpfulness"}] * 2),
        ["line", "data.path", "unknown key", "kind, license, prompts, pairs, annotators, files"],
    ),
    "missing key": (problem(dimensions=None), ["dimensions", "is missing; add it"]),
    "missing nested key": (
        problem(data={"kind": "file", "columns": problem()["data"]["columns"]}),
        ["line", "data.path", "is missing; add it", "relative to the problem's file"],
    ),
    "missing kind": (
        problem(base_model={}),
        ["line", "base_model.kind", "missing", "one of scratch, pretrained"],
    ),
    "unknown kind": (
        problem(data={"kind": "fil"}),
        ["line", "data.kind", "one of world, file, hub, several, known, not 'fil'"],
    ),
    "wrong type": (
        problem(training={"steps": "many"}),
        ["line", "training.steps", "must be a valid integer, not 'many'", "change it"],
    ),
    "truth value for a number": (problem(seed=True), ["line", "seed", "valid integer, not True"]),
    "text for a number": (problem(beta="0.5"), ["line", "beta", "valid number, not '0.5'"]),
    "list for a mapping": (problem(training=[1]), ["line", "training", "must be a mapping"]),
    "NaN": (problem(beta=float("nan")), ["line", "beta", "finite number, not nan"]),
    "out of range": (problem(beta=0), ["line", "beta", "must be greater than 0, not 0"]),
    "wrong label form": (
        problem(
            data={
                **problem()["data"],
                "columns": {"layout": "pairs", "labels": {"warm": {"a": "x"}, "short": "y"}},
            }
        ),
        ["line", "data.columns.labels.warm.b", "is missing; add it"],
    ),
    "strength without a scale": (
        problem(
            data={
                **problem()["data"],
                "columns": {"layout": "pairs", "labels": {"warm": {"strength": "x"}, "short": "y"}},
            }
        ),
        ["line", "data.columns.labels.warm.scale", "is missing; add it", "the largest value"],
    ),
    "unknown layout": (
        problem(data={**problem()["data"], "columns": {"layout": "pair"}}),
        ["line", "data.columns.layout", "one of pairs, chosen, responses, demonstrations"],
    ),
    "unknown dimension": (
        problem(data=WORLD, dimensions=[{"name": "helpfulness"}, {"name": "wit"}]),
        ["line", "dimensions", "unknown ['wit']", "helpfulness", "harmlessness"],
    ),
    "dimension without a column": (
        problem(dimensions=[*DIMENSIONS, {"name": "wit"}]),
        ["line", "dimensions", "unknown ['wit']", "data.columns maps ['short', 'warm']"],
    ),
    "column without a dimension": (
        problem(dimensions=[DIMENSIONS[0], {"name": "wit"}]),
        ["data.columns", "maps ['short']", "add them there or delete"],
    ),
    "one dimension": (problem(dimensions=DIMENSIONS[:1]), ["line", "dimensions", "at least 2"]),
    "eleven dimensions": (
        problem(dimensions=[{"name": f"d{i}"} for i in range(11)]),
        ["line", "dimensions", "at most 10"],
    ),
    "one dimension twice": (
        problem(dimensions=DIMENSIONS[:1] * 2),
        ["line", "dimensions", "names must differ"],
    ),
    "name other than the file's": (
        problem(name="good"),
        ["line", "name", "'good' is not the file's name", "rename the file to good.yaml"],
    ),
    "name a path": (problem(name="../bad"), ["line", "name", "match pattern"]),
    "not YAML": (b"name: bad\ndata: [1\n", ["line 3", "not YAML", "expected ',' or ']'"]),
    "tabs": (b"name: bad\ndata:\n\tkind: file\n", ["line 3", "not YAML", "indent with spaces"]),
    "key twice": (b"name: bad\nseed: 1\nseed: 2\n", ["line 3, seed", "line 2", "delete one"]),
    "empty": (b"# nothing\n", ["is empty", "panacea new NAME"]),
    "a list": (b"- name: bad\n", ["line 1", "no mapping", "key: value"]),
    "not UTF-8": (b"name: bad\nowner: caf\xe9\n", ["line 2", "0xe9", "save the file as UTF-8"]),
    "alias": (b"name: &x bad\nowner: *x\n", ["line 2", "aliases", "write the value out"]),
    "tag": (b"name: !!python/object:os.system x\n", ["line 1", "the tag", "delete it"]),
    "number for a key": (b"name: bad\n3: x\n", ["line 2", "a key must be text", "quotes"]),
}


@pytest.mark.parametrize("case", PROBLEMS.values(), ids=list(PROBLEMS))
def test_bad_problem(case: tuple[dict[str, Any] | bytes, list[str]], tmp_path: Path) -> None:
    values, says = case
    path = tmp_path / "bad.yaml"
    raw = values if isinstance(values, bytes) else dump(values).encode()
    path.write_bytes(raw)
    with pytest.raises(InputError) as error:
        load_problem(path)
    message = str(error.value)
    assert all(part in message for part in [str(path), *says]), message
    assert list(tmp_path.iterdir()) == [path]


def test_every_mistake_is_told(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(dump(problem(dimension=DIMENSIONS, dimensions=None, beta=-1)))
    with pytest.raises(InputError) as error:
        load_problem(path)
    lines = str(error.value).splitlines()
    assert len(lines) == 3
    assert "unknown key (did you mean 'dimensions'?)" in lines[0]


def test_missing_problem_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.yaml: cannot be read .*check the path"):
        load_problem(tmp_path / "gone.yaml")


def test_two_problems_of_one_name(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "demo.yaml").write_text("name: demo\nextends: demo3\n")
    monkeypatch.setenv("PANACEA_PROBLEMS", str(tmp_path))
    with pytest.raises(InputError) as error:
        find_problems(Workspace.current())
    message = str(error.value)
    assert str(tmp_path / "demo.yaml") in message and "problems/demo.yaml and" in message
    assert "rename one file" in message
