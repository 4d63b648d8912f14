"""The command `panacea`: what it prints, its exit codes, and that bad input writes nothing."""

import io
import json
import sys
import webbrowser
from pathlib import Path

import numpy as np
import pytest
from conftest import panacea
from rich.console import Console
from small_warehouse import dataset, front, generations, models

from orchestration.cli import main
from orchestration.prefer import parse_preference
from orchestration.printing import front_table
from panacea_lib.errors import InputError
from panacea_lib.problem_files import load_problem
from panacea_lib.warehouse import Warehouse
from panacea_lib.workspace import Workspace

DIMENSIONS = ["helpfulness", "harmlessness", "conciseness"]


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A fresh workspace with nothing in it."""
    folder = tmp_path / "home"
    monkeypatch.setenv("PANACEA_HOME", str(folder))
    return folder


@pytest.fixture
def run(monkeypatch, capsys, home):
    """Run the command line in this process: (exit code, stdout, stderr)."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["panacea", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return call


@pytest.fixture
def filled(home) -> Warehouse:
    warehouse = Warehouse(Workspace.current().warehouse)
    warehouse.save_products([*dataset("1"), *models(), *generations(), front("front1", 0.8)])
    return warehouse


def test_problems_lists_shipped_ones_and_ours(run):
    code, out, _ = run("problems")
    assert code == 0
    for name in ("demo", "demo3", "demo-nf4", "helpsteer2-tiny", "smollm2-helpsteer2", "tiny"):
        assert name in out


def test_problems_shows_a_bad_file_s_mistake_beside_the_good_ones(run, tmp_path, monkeypatch):
    (tmp_path / "bad.yaml").write_text("name: bad\nextends: demo\nbeta: -1\n")
    monkeypatch.setenv("PANACEA_PROBLEMS", str(tmp_path))
    code, out, _ = run("problems")
    assert code == 0 and "demo3" in out and "beta" in out


def test_new_prints_a_problem_that_validates(run, tmp_path):
    code, out, _ = run("new", "mine")
    assert code == 0
    (tmp_path / "mine.yaml").write_text(out)
    assert load_problem(tmp_path / "mine.yaml").name == "mine"
    code, out, _ = run("validate", str(tmp_path / "mine.yaml"), "--no-data")
    assert code == 0 and "mine is a valid problem" in out


def test_new_writes_a_file_and_never_over_another(run, tmp_path):
    target = tmp_path / "mine.yaml"
    assert run("new", "mine", "--out", str(target))[0] == 0
    before = target.read_text()
    code, _, err = run("new", "mine", "--out", str(target))
    assert code == 2 and "exists already" in err
    assert target.read_text() == before


def test_datasets_lists_the_known_ones(run):
    code, out, _ = run("datasets")
    assert code == 0
    for word in ("pku-saferlhf", "hh-harmless", "harmlessness", "cc-by-nc-4.0", "https://"):
        assert word in out


def test_validate_counts_each_of_several_data_sets(run, tmp_path):
    parts = []
    for name, start in (("ours", 0), ("theirs", 20)):
        rows = [
            {"prompt": f"q{i}", "response_a": "x", "response_b": "y", "warm": i % 2}
            for i in range(start, start + 40)
        ]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        labels = {d: {"preferred": "warm"} for d in ("warm", "short")}
        columns = {"layout": "pairs", "labels": labels}
        parts.append({"kind": "file", "path": f"{name}.jsonl", "columns": columns})
    problem = {
        "name": "mine",
        "dimensions": [{"name": "warm"}, {"name": "short"}],
        "data": {"kind": "several", "parts": parts},
        "base_model": {"kind": "scratch"},
    }
    (tmp_path / "mine.yaml").write_text(json.dumps(problem))
    code, out, _ = run("validate", str(tmp_path / "mine.yaml"))
    assert code == 0
    assert "  pairs: 60" in out and "  of ours:\n    rows read: 40\n    pairs: 40" in out
    assert "  of theirs:" in out and "    opinions merged: 20" in out


def test_validate_reads_the_data_to_the_last_row(run, tmp_path):
    rows = [
        {"prompt": f"question {i}", "a": f"yes {i}", "b": f"no {i}", "warm": [i % 3, 1]}
        for i in range(40)
    ]
    columns = {
        "layout": "pairs",
        "response_a": "a",
        "response_b": "b",
        "labels": {"warm": "warm", "short": "warm"},
    }
    problem = {
        "name": "mine",
        "dimensions": [{"name": "warm"}, {"name": "short"}],
        "data": {"kind": "file", "path": "mine.jsonl", "columns": columns},
        "base_model": {"kind": "scratch"},
    }
    (tmp_path / "mine.yaml").write_text(json.dumps(problem))  # JSON is YAML
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, _ = run("validate", str(tmp_path / "mine.yaml"))
    assert code == 0 and "rows read: 40" in out
    rows[36]["a"] = 7
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, _, err = run("validate", str(tmp_path / "mine.yaml"))
    assert code == 2 and "line 37" in err and "'a'" in err


def test_schema_is_json(run):
    code, out, _ = run("schema")
    assert code == 0 and json.loads(out)["required"] == ["name"]


def test_sql_in_three_formats(run, filled):
    query = "select problem, method, value_ratio from leaderboard"
    code, out, _ = run("sql", query)
    assert code == 0 and "panacea_dpo" in out and "0.8" in out
    code, out, _ = run("sql", query, "--json")
    assert code == 0
    assert json.loads(out)[0] == {"problem": "demo", "method": "panacea", "value_ratio": 0.8}
    code, out, _ = run("sql", query, "--csv")
    assert code == 0 and out.splitlines()[:2] == ["problem,method,value_ratio", "demo,panacea,0.8"]


def test_a_few_rows_too_wide_are_laid_out_sideways(run, filled):
    _, out, _ = run("sql", "from leaderboard")
    assert any(line.split()[1] == "charged_hypervolume" for line in out.splitlines() if "│" in line)
    _, out, _ = run("sql", "select problem, method from leaderboard")
    assert out.splitlines()[1].split()[1:4:2] == ["problem", "method"]


def test_many_dimensions_share_columns_and_only_corners_and_centre_are_shown():
    names = ["a", "b", "c", "d", "e"]
    grid = [*np.eye(5), np.full(5, 0.2), *np.random.default_rng(0).dirichlet(np.ones(5), 58)]
    points = [
        {
            "preference": dict(zip(names, weights, strict=True)),
            "rewards": dict.fromkeys(names, 0.5),
            "judge": "proxy",
            "kl": 0.1,
            "prompt": "why [bold]?",
            "response": "so " * 500,
        }
        for weights in grid
    ]
    console = Console(file=io.StringIO(), width=100)
    console.print(front_table("many", points))
    shown = console.file.getvalue()
    assert shown.count("+0.50") == 6 * 5 and "58 more preferences" in shown
    assert "[bold]" in shown and len(shown.splitlines()) < 50


CHOOSE = ("choose", "tiny", "--most", "helpfulness")
BAD = {
    "no such problem": (("materialize", "dmeo"), "did you mean 'demo'"),
    "no such asset": (("materialize", "tiny", "--select", "pairz"), "did you mean 'pairs'"),
    "bad selection": (("materialize", "tiny", "--select", "key:("), "no asset selection"),
    "selection of the UI": (
        ("materialize", "tiny", "--select", "code_location:x"),
        "no asset selection",
    ),
    "no such file": (("validate", "nowhere.yaml"), "nowhere.yaml"),
    "bad name": (("new", "Bad Name"), "no problem name"),
    "no such folder": (("new", "mine", "--out", "/nowhere/mine.yaml"), "no such folder"),
    "data not there": (("materialize", "helpsteer2-tiny"), "HELPSTEER2_PAIRS"),
    "two formats": (("sql", "select 1", "--json", "--csv"), "not both"),
    "unknown dimension": (("ask", "tiny", "hi", "--prefer", "warmth=1"), "no dimension is named"),
    "not a weight": (("ask", "tiny", "hi", "--prefer", "harmlessness=x"), "no weight"),
    "empty prompt": (("ask", "tiny", "  "), "empty"),
    "two ways to prefer": (
        ("ask", "tiny", "hi", "--slider", "0.5", "--prefer", "harmlessness=1"),
        "give --prefer or --slider, not both",
    ),
    "off the slider": (("ask", "tiny", "hi", "--slider", "nan"), "from 0 (all weight on harmless"),
    "slider of three": (("ask", "demo3", "hi", "--slider", "0.5"), "between two dimensions"),
    "floor of what": (
        (*CHOOSE, "--at-least", "warmth=1"),
        "--at-least: no dimension is named 'warmth'",
    ),
    "most of what": (
        ("choose", "tiny", "--at-least", "harmlessness=0", "--most", "helpfulnes"),
        "did you mean 'helpfulness'",
    ),
    "no floor": (
        (*CHOOSE, "--at-least", "harmlessness"),
        "'harmlessness' is not NAME=REWARD",
    ),
    "floor that is no number": (
        (*CHOOSE, "--at-least", "harmlessness=nan"),
        "'nan' is no reward for harmlessness",
    ),
    "endless floor": (
        (*CHOOSE, "--at-least", "harmlessness=-inf"),
        "'-inf' is no reward",
    ),
    "two floors": (
        (*CHOOSE, "--at-least", "harmlessness=0", "--at-least", "harmlessness=1"),
        "harmlessness has two floors",
    ),
}


@pytest.mark.parametrize(("arguments", "told"), BAD.values(), ids=BAD)
def test_bad_input_is_one_sentence_on_stderr_and_writes_nothing(
    run, home, monkeypatch, arguments, told
):
    monkeypatch.delenv("HELPSTEER2_PAIRS", raising=False)
    monkeypatch.chdir(home.parent)
    code, out, err = run(*arguments)
    assert code == 2
    assert told in err and out == ""
    assert len(err.strip().splitlines()) == 1 and "Traceback" not in err
    assert not home.exists()


@pytest.mark.parametrize("arguments", [("materialize",), ("materialize", "tiny", "--seed", "-1")])
def test_usage_errors_exit_with_2(run, home, arguments):
    assert run(*arguments)[0] == 2
    assert not home.exists()


def test_bad_sql_and_an_empty_workspace_are_told_apart(run, filled, home, monkeypatch):
    code, _, err = run("sql", "select nonsense from leaderboard")
    assert code == 2 and "refused" in err
    code, _, err = run("sql", "copy leaderboard to 'stolen.csv'")
    assert code == 2 and "refused" in err
    monkeypatch.setenv("PANACEA_HOME", str(home / "elsewhere"))
    code, _, err = run("sql", "from leaderboard")
    assert code == 1 and "panacea materialize demo" in err


def test_a_policy_that_is_not_there_names_the_remedy(run):
    code, _, err = run("ask", "tiny", "how do i bake bread today")
    assert code == 1 and "panacea materialize" in err


def test_help_needs_no_workspace():
    finished = panacea("--help")
    assert finished.code == 0
    for command in (
        "problems",
        "validate",
        "new",
        "materialize",
        "sql",
        "ask",
        "choose",
        "dev",
        "schema",
    ):
        assert command in finished.out


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("harmlessness=.8,helpfulness=.2", [0.2, 0.8, 0.0]),
        ("harmlessness=.8", [0.1, 0.8, 0.1]),
        (" conciseness = 1 ", [0.0, 0.0, 1.0]),
        ("helpfulness=0.3,harmlessness=0.3,conciseness=0.4", [0.3, 0.3, 0.4]),
    ],
)
def test_preferences_as_people_write_them(text, weights):
    found = parse_preference(text, DIMENSIONS)
    assert list(found) == DIMENSIONS
    assert list(found.values()) == pytest.approx(weights)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("helpfulness", "NAME=WEIGHT"),
        ("=.5", "NAME=WEIGHT"),
        ("helpfulness=.5,", "NAME=WEIGHT"),
        ("warmth=.5", "no dimension"),
        ("helpfulness=.5,helpfulness=.5", "twice"),
        ("helpfulness=-.1", "no weight"),
        ("helpfulness=nan", "no weight"),
        ("helpfulness=inf", "no weight"),
        ("helpfulness=.8,harmlessness=.8", "sum to 1.6"),
        ("helpfulness=.3,harmlessness=.3,conciseness=.3", "sum to 0.9"),
    ],
)
def test_bad_preferences_are_refused(text, told):
    with pytest.raises(InputError, match=told):
        parse_preference(text, DIMENSIONS)


def test_report_prints_where_the_page_lies_and_opens_it(run, home, monkeypatch):
    page = home / "var" / "reports" / "tiny.html"
    page.parent.mkdir(parents=True)
    page.write_text("<!DOCTYPE html>")
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda url: opened.append(url) or True)
    assert run("report", "tiny") == (0, f"{page}\n", "") and not opened
    assert run("report", "tiny", "--open") == (0, f"{page}\n", "")
    assert opened == [page.as_uri()]
    monkeypatch.setattr(webbrowser, "open", lambda url: False)
    code, out, err = run("report", "tiny", "--open")
    assert (code, out) == (1, f"{page}\n") and "no browser" in err


def test_report_says_how_to_make_one(run, home):
    code, out, err = run("report", "tiny", "--open")
    assert (code, out) == (1, "") and "panacea materialize tiny" in err
    assert run("report", "nothing")[0] == 2
    assert not home.exists()
