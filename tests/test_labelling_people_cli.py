"""`panacea people` on a real warehouse: out, in, again, and what is refused."""

import csv
from pathlib import Path

import pytest
from conftest import Finished, panacea
from small_warehouse import product, table

from panacea_lib.warehouse import Warehouse
from panacea_lib.workspace import Workspace

PAIRS = 8
LABELLED = ["p1", "p2"]


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Workspace:
    """One in which `tiny` has eight pairs; two of them have a label on helpfulness."""
    monkeypatch.setenv("PANACEA_HOME", str(tmp_path / "home"))
    numbers = range(PAIRS)
    sides = [(f"r{i}{s}", "q", "data", f"- {s}{i}\r\n=é") for i in numbers for s in "ab"]
    tables = {
        "prompts": table("prompt_id split text", ("q", "train", "how?")),
        "responses": table("response_id prompt_id source text", *sides),
        "pairs": table(
            "pair_id prompt_id split response_a response_b",
            *((f"p{i}", "q", "train", f"r{i}a", f"r{i}b") for i in numbers),
        ),
        "preference_labels": table(
            "pair_id dimension label status source annotator confidence reason",
            *((p, "helpfulness", 1.0, "ok", "world", "w", None, None) for p in LABELLED),
            ("p3", "helpfulness", None, "failed", "judge", "j", None, "no answer"),
        ),
    }
    found = Workspace.current()
    Warehouse(found.warehouse).save_products(
        (product(f"key-{stage}", stage, problem="tiny"), {stage: rows})
        for stage, rows in tables.items()
    )
    return found


def export(out: Path, *options: str) -> Finished:
    arguments = ["tiny", "--dimension", "helpfulness", "--out", str(out), *options]
    return panacea("people", "export", *arguments)


def rows(batch: Path) -> list[dict[str, str]]:
    with batch.open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.DictReader(stream))


def answered(batch: Path, who: str, given: dict[int, str]) -> str:
    """Answer some rows of the batch and save it under the person's name."""
    found = rows(batch)
    for row, preferred in given.items():
        found[row] |= {"preferred": preferred, "annotator": who}
    out = batch.with_name(f"{batch.stem}-{who}.csv")
    with out.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(found[0]), delimiter=";")
        writer.writeheader()
        writer.writerows(found)
    return str(out)


def import_(file: str) -> Finished:
    return panacea("people", "import", "tiny", file)


def test_answers_come_in_once_and_are_told_of(workspace, tmp_path):
    folder = workspace.root / "var" / "people" / "tiny"
    batch, again = tmp_path / "batch.csv", tmp_path / "again.csv"
    out = export(batch, "--count", "7")
    assert out.code == 0, out.err
    assert "7 pairs, 1 of them that have a label" in out.out
    asked = [row["pair_id"] for row in rows(batch)]
    assert asked[-1] in LABELLED and not set(asked[:-1]) & set(LABELLED), "p3 has no label either"
    assert export(again, "--count", "7").code == 0
    assert again.read_bytes() == batch.read_bytes(), "a hash chooses, no clock"

    ann = answered(batch, "ann", {0: "a", 1: "b", 2: "tie", 3: "A"})
    filed = import_(ann)
    assert filed.code == 0, filed.err
    assert "filed 4 answers in" in filed.out and "unanswered rows: 3" in filed.out
    assert "put `- kind: people` under labels.helpfulness" in filed.out
    kept = {path: path.read_bytes() for path in folder.glob("*.parquet")}
    twice = import_(ann)
    assert twice.code == 0 and "nothing is new" in twice.out
    assert kept == {path: path.read_bytes() for path in folder.glob("*.parquet")}

    # --overlap asks a second person of what somebody has answered.
    over = tmp_path / "over.csv"
    found = export(over, "--overlap")
    assert found.code == 0 and "4 pairs, 0 of them answered by two" in found.out
    assert import_(answered(over, "bob", {0: "a", 1: "b", 2: "a"})).code == 0
    otherwise = import_(answered(batch, "ann", {0: "b", 4: "a"}))
    assert otherwise.code == 2 and "'ann' says b of pair" in otherwise.err
    assert str(next(iter(kept))) in otherwise.err, "which earlier file says otherwise"

    status = panacea("people", "status", "tiny")
    assert status.code == 0, status.err
    row = next(line for line in status.out.splitlines() if "helpfulness" in line)
    cells = [cell.strip() for cell in row.strip().strip("│").split("│")]
    assert cells[1:7] == ["8", "2", "2", "7", "4", "3"] and cells[8:] == ["0", "no"], status.out
    assert -1 <= float(cells[7]) <= 1


def test_bad_input_is_refused_and_nothing_is_filed(workspace, tmp_path):
    batch = tmp_path / "batch.csv"
    assert export(batch).code == 0
    typo = answered(batch, "ann", {0: "a", 1: "left"})
    for arguments, said in [
        (["import", "tiny", str(batch)], "no row is answered"),
        (["import", "tiny", typo], "row 3, column 'preferred': 'left' is no answer"),
        (["import", "tiny", str(tmp_path / "none.csv")], "no such file"),
        (["status", "tin"], "did you mean 'tiny'"),
    ]:
        found = panacea("people", *arguments)
        assert found.code == 2 and said in found.err, (arguments, found)
    for out, options, said in [
        (tmp_path / "x.csv", ["--overlap"], "nobody has answered any pair"),
        (tmp_path / "x.txt", [], "name it .csv or .parquet"),
        (batch, [], "exists already"),
    ]:
        found = export(out, *options)
        assert found.code == 2 and said in found.err, found
    assert not (workspace.root / "var" / "people").exists()


def test_before_there_are_pairs_it_says_what_to_run(tmp_path, monkeypatch):
    monkeypatch.setenv("PANACEA_HOME", str(tmp_path))
    for arguments in (["status", "tiny"], ["import", "tiny", "batch.csv"]):
        found = panacea("people", *arguments)
        assert found.code == 1 and "--select prompts,base_model,responses,pairs" in found.err
    assert not list(tmp_path.iterdir()), "nothing is written"
