"""`panacea people` on a chain that really ran: out, in, again, and what is refused."""

import csv
from pathlib import Path

import pytest
from conftest import HOME, panacea

from panacea_lib.workspace import Workspace

FOLDER = HOME / "var" / "people" / "tiny"


def answer(batch: Path, who: str, given: dict[int, str]) -> Path:
    with batch.open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row, preferred in given.items():
        rows[row] |= {"preferred": preferred, "annotator": who}
    out = batch.with_name(f"{batch.stem}-{who}.csv")
    with out.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return out


def export(out: Path, *options: str):
    return panacea("people", "export", "tiny", "--dimension", "helpfulness", "--out", out, *options)


def test_before_there_are_pairs_it_says_what_to_run(tmp_path, monkeypatch):
    monkeypatch.setenv("PANACEA_HOME", str(tmp_path))
    for arguments in (["status", "tiny"], ["import", "tiny", "batch.csv"]):
        found = panacea("people", *arguments)
        assert found.code == 1 and "--select prompts,base_model,responses,pairs" in found.err
    assert not list(tmp_path.iterdir()), "nothing is written"


@pytest.fixture(scope="module")
def labelled() -> None:
    """The pairs of `tiny` and their labels: where the whole chain has run, they are reused."""
    stages = "prompts,base_model,responses,pairs,annotations,preference_labels"
    finished = panacea("materialize", "tiny", "--select", stages)
    assert finished.code == 0, finished.err


@pytest.mark.slow
def test_pairs_go_out_and_answers_come_in(labelled, tmp_path):
    batch = tmp_path / "batch.csv"
    out = export(batch, "--count", "6")
    assert out.code == 0, out.err
    assert "6 pairs, 6 of them that have a label" in out.out, "the world labels every pair"
    again = tmp_path / "again.csv"
    assert export(again, "--count", "6").code == 0
    assert again.read_bytes() == batch.read_bytes(), "a hash chooses, no clock"

    # An empty batch, and one with a mistake, write nothing.
    for file, said in [
        (batch, "no row is answered"),
        (answer(batch, "typo", {0: "a", 1: "left"}), "row 3, column 'preferred': 'left' is no ans"),
    ]:
        refused = panacea("people", "import", "tiny", file)
        assert refused.code == 2 and said in refused.err
        assert not FOLDER.exists()
    assert export(tmp_path / "x.csv", "--overlap").code == 2, "nobody has answered yet"

    ann = answer(batch, "ann", {0: "a", 1: "b", 2: "tie", 3: "A"})
    filed = panacea("people", "import", "tiny", ann)
    assert filed.code == 0, filed.err
    assert "filed 4 answers in" in filed.out and "unanswered rows: 2" in filed.out
    assert "put `- kind: people` under labels.helpfulness" in filed.out
    kept = {path: path.read_bytes() for path in FOLDER.glob("*.parquet")}
    twice = panacea("people", "import", "tiny", ann)
    assert twice.code == 0 and "nothing is new" in twice.out
    assert kept == {path: path.read_bytes() for path in FOLDER.glob("*.parquet")}

    # The next batch leaves out what has been answered; --overlap asks a second person of it.
    over = tmp_path / "over.csv"
    found = export(over, "--overlap")
    assert found.code == 0 and "4 pairs, 0 of them answered by two" in found.out
    bob = answer(over, "bob", {0: "a", 1: "b", 2: "a"})
    assert panacea("people", "import", "tiny", bob).code == 0
    otherwise = panacea("people", "import", "tiny", answer(batch, "ann", {0: "b", 4: "a"}))
    assert otherwise.code == 2 and "'ann' says b of pair" in otherwise.err
    assert str(next(iter(kept))) in otherwise.err

    status = panacea("people", "status", "tiny")
    assert status.code == 0, status.err
    row = next(line for line in status.out.splitlines() if "helpfulness" in line)
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells[1:7] == ["600", "600", "2", "7", "4", "3"] and cells[8:] == ["0", "no"]
    assert -1 <= float(cells[7]) <= 1
    assert Workspace.current().root == HOME


def test_bad_arguments_are_bad_input(labelled, tmp_path):
    for arguments, said in [
        (["status", "tin"], "did you mean 'tiny'"),
        (["import", "tiny", tmp_path / "none.csv"], "no such file"),
        (["export", "tiny", "--dimension", "helpfulnes", "--out", tmp_path / "x.csv"], "--dimen"),
        (["export", "tiny", "--dimension", "helpfulness", "--out", tmp_path / "x.txt"], ".parquet"),
    ]:
        found = panacea("people", *arguments)
        assert found.code == 2 and said in found.err, (arguments, found)
    assert not list(tmp_path.iterdir())
