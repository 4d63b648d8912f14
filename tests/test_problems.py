"""Problem files: every shipped one parses; extends, names, paths, schema and template."""

import json
import os
import re
from pathlib import Path

import pytest
import yaml

from panacea_lib.data import load_preference_data
from panacea_lib.errors import InputError
from panacea_lib.problem import Problem
from panacea_lib.problem_data import FileData, WorldData
from panacea_lib.problem_files import (
    expand_hub_id,
    expand_path,
    find_problems,
    load_problem,
    load_problem_named,
    problem_json_schema,
)
from panacea_lib.problem_models import ScratchModel
from panacea_lib.problem_template import new_problem
from panacea_lib.workspace import PROJECT_ROOT, Workspace

SHIPPED = sorted(
    (PROJECT_ROOT / "assets_data" / "problems").glob("*.yaml"), key=lambda path: path.stem
)
README = (PROJECT_ROOT / "assets_data" / "README.md").read_text()
COLUMNS = {"layout": "pairs", "labels": {"warm": "scores.warm", "short": "scores.short"}}


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace whose users' problems lie in `tmp_path`."""
    monkeypatch.setenv("PANACEA_PROBLEMS", str(tmp_path))
    return Workspace.current()


def minimal(name: str, **changes: object) -> dict:
    """The least a file problem needs."""
    return {
        "name": name,
        "dimensions": [{"name": "warm"}, {"name": "short"}],
        "data": {"kind": "file", "path": f"{name}.jsonl", "columns": COLUMNS},
        "base_model": {"kind": "scratch"},
        **changes,
    }


def write(folder: Path, name: str, values: dict) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_problem_parses(path: Path) -> None:
    problem = load_problem(path)
    assert problem.name == path.stem
    assert problem.description
    schema = re.match(r"# yaml-language-server: \$schema=(\S+)\n", path.read_text())
    assert schema, "the first line names the schema, for editors"
    assert (path.parent / schema.group(1)).resolve() == (
        PROJECT_ROOT / "docs" / "problem.schema.json"
    )


def test_shipped_problems_are_the_promised_ones() -> None:
    problems = {path.stem: load_problem(path) for path in SHIPPED}
    assert {"demo", "demo3", "demo-nf4", "demo-small", "helpsteer2-tiny", "smollm2-helpsteer2"} <= {
        *problems
    }
    assert problems["demo"].dimension_names == ["helpfulness", "harmlessness"]
    assert problems["demo3"].dimension_names == ["helpfulness", "harmlessness", "conciseness"]
    assert problems["demo-nf4"].base_model.quantization == "nf4"
    small, nf4 = problems["demo-small"], problems["demo-nf4"]
    assert nf4.training == small.training and nf4.evaluation == small.evaluation
    for name in problems:
        assert f"| `{name}` |" in README


def test_schema_file_is_current() -> None:
    committed = json.loads((PROJECT_ROOT / "docs" / "problem.schema.json").read_text())
    assert committed == problem_json_schema(), (
        "run: python -m panacea_lib.problem_files > docs/problem.schema.json"
    )


def test_template_is_a_valid_problem(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(new_problem("mine"))
    problem = load_problem_named(workspace, "mine")
    assert problem.name == "mine" and isinstance(problem.data, FileData)
    with pytest.raises(InputError, match="no problem name"):
        new_problem("../mine")


def test_found_problems_are_shipped_ones_and_the_users(
    workspace: Workspace, tmp_path: Path
) -> None:
    path = write(tmp_path, "mine", minimal("mine"))
    (tmp_path / ".hidden.yaml").write_text("nothing")
    (tmp_path / "notes.txt").write_text("nothing")
    found = find_problems(workspace)
    assert list(found) == [*(p.stem for p in SHIPPED), "mine"]
    assert found["mine"] == path
    assert load_problem_named(workspace, "mine").dimension_names == ["warm", "short"]


def test_unknown_name_lists_the_near_ones(workspace: Workspace) -> None:
    with pytest.raises(InputError, match=r"'demoo'.*did you mean 'demo'"):
        load_problem_named(workspace, "demoo")
    with pytest.raises(InputError, match="known here: demo, demo-nf4, demo-small"):
        load_problem_named(workspace, "zzz")


def test_a_folder_that_is_missing_is_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PANACEA_PROBLEMS", str(tmp_path / "gone"))
    with pytest.raises(InputError, match=r"gone: no such folder.*PANACEA_PROBLEMS"):
        find_problems(Workspace.current())


def test_extends_merges_mappings_and_replaces_lists_and_kinds(
    workspace: Workspace, tmp_path: Path
) -> None:
    write(tmp_path, "base", minimal("base", training={"steps": 7, "preferences": {"per": "batch"}}))
    child = {"name": "child", "extends": "base", "training": {"rank": 3}, "seed": 5}
    problem = load_problem(write(tmp_path, "child", child))
    assert (problem.training.steps, problem.training.rank, problem.seed) == (7, 3, 5)
    assert problem.training.preferences.per == "batch"

    world = {
        "name": "world",
        "extends": "child",
        "data": {"kind": "world"},
        "dimensions": [{"name": "helpfulness"}, {"name": "harmlessness"}],
    }
    problem = load_problem(write(tmp_path, "world", world))
    assert isinstance(problem.data, WorldData)  # no left-over path or columns
    assert problem.training.steps == 7


def test_extends_reaches_shipped_problems(workspace: Workspace, tmp_path: Path) -> None:
    path = write(tmp_path, "longer", {"name": "longer", "extends": "demo", "seed": 3})
    demo = load_problem_named(workspace, "demo")
    assert load_problem(path) == demo.model_copy(update={"name": "longer", "seed": 3})


def test_inherited_relative_path_stays_with_its_file(tmp_path: Path, monkeypatch) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir(), theirs.mkdir()
    monkeypatch.setenv("PANACEA_PROBLEMS", f"{ours}{os.pathsep}{theirs}")
    write(theirs, "base", minimal("base"))
    path = write(ours, "child", {"name": "child", "extends": "base"})
    problem = load_problem(path)
    assert isinstance(problem.data, FileData)
    assert expand_path(problem.data.path, path) == theirs / "base.jsonl"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../../etc/passwd", "no problem name"),
        ("/tmp/other", "no problem name"),
        (3, "no problem name"),
        ("nobody", "no problem is named 'nobody'"),
        ("child", "goes in a circle"),
    ],
)
def test_extends_refuses(name: object, message: str, workspace: Workspace, tmp_path: Path) -> None:
    path = write(tmp_path, "child", {"name": "child", "extends": name})
    with pytest.raises(InputError, match=rf"child\.yaml, line 1, extends: .*{message}"):
        load_problem(path)


def test_extends_circle_of_two(workspace: Workspace, tmp_path: Path) -> None:
    write(tmp_path, "one", {"name": "one", "extends": "two"})
    path = write(tmp_path, "two", {"name": "two", "extends": "one"})
    with pytest.raises(InputError, match="two → one → two"):
        load_problem(path)


def test_paths(tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "p.yaml"
    monkeypatch.setenv("PLACE", "/data")
    monkeypatch.setenv("BESIDE", "here/x.csv")
    monkeypatch.setenv("NESTED", "${PLACE}")
    monkeypatch.chdir(tmp_path.parent)
    assert expand_path("x.csv", file) == tmp_path / "x.csv"
    assert expand_path("../x.csv", file) == tmp_path.parent / "x.csv"
    assert expand_path("${PLACE}/x.csv", file) == Path("/data/x.csv")
    assert expand_path("${BESIDE}", file) == tmp_path.parent / "here" / "x.csv"
    assert expand_path("~/x.csv", file) == Path.home() / "x.csv"
    # A variable's value is taken as it is: it cannot bring in another variable.
    assert expand_path("${NESTED}", file) == tmp_path.parent / "${PLACE}"
    for text, message in (
        ("${UNSET_HERE}/x", "set it, e.g. `export UNSET_HERE="),
        ("${a b}", "no environment variable"),
        ("${}", "no environment variable"),
        (" ", "is no path"),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            expand_path(text, file)


def test_hub_ids_and_local_directories(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    file = tmp_path / "p.yaml"
    assert expand_hub_id("owner/model", file) == "owner/model"
    assert expand_hub_id("./model", file) == str(tmp_path / "model")
    with pytest.raises(InputError, match="no such directory"):
        expand_hub_id("./gone", file)


def test_configurations_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 2 · heads"):
        ScratchModel(kind="scratch", hidden_size=60, heads=4)
    with pytest.raises(ValueError, match="quantised to nf4"):
        ScratchModel(kind="scratch", hidden_size=48, heads=4, quantization="nf4")
    with pytest.raises(ValueError, match=r"evaluation\.max_new_tokens: must be below"):
        Problem.model_validate(minimal("long", evaluation={"max_new_tokens": 64}))


@pytest.mark.parametrize("block", re.findall(r"```yaml\n(data:.*?)```", README, re.DOTALL))
def test_readme_data_sections_are_valid(block: str, tmp_path: Path) -> None:
    """Every one, also where no rows stand above it; a rule labels what the columns do not."""
    names = ["helpfulness", "harmlessness", "verbosity"]
    values = minimal(
        "section",
        dimensions=[{"name": name} for name in names],
        labels={name: [{"kind": "length"}] for name in names},
        **yaml.safe_load(block),
    )
    load_problem(write(tmp_path, "section", values))


def _readme_examples() -> list[tuple[str, str]]:
    return re.findall(r"```json\n(.*?)```\n\n```yaml\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("example", _readme_examples(), ids=["nested", "flat", "graded"])
def test_readme_examples_are_true(example: tuple[str, str], tmp_path: Path) -> None:
    """Each mapping is read together with the rows above it, repeated under other prompts."""
    rows, config = (
        [json.loads(line) for line in example[0].splitlines()],
        yaml.safe_load(example[1]),
    )
    columns = config["data"]["columns"]
    prompt = columns.get("prompt", "prompt")
    lines = []
    for copy in range(20):
        for row in rows:
            text = row[prompt] + f" ({copy})"
            own_id = {"pair_id": f"{row['pair_id']}-{copy}"} if "pair_id" in row else {}
            lines.append(json.dumps({**row, **own_id, prompt: text}))
    (tmp_path / config["data"]["path"]).write_text("\n".join(lines))
    mapped = columns.get("labels") or columns["scores"]
    values = minimal("example", dimensions=[{"name": name} for name in mapped], **config)
    path = write(tmp_path, "example", values)
    data = load_preference_data(load_problem(path), path)
    expected = {
        "pairs.jsonl": (60, 80, 20),
        "flat.jsonl": (60, 100, 20),
        "graded.jsonl": (40, 60, 0),
    }
    pairs, labels, ties = expected[config["data"]["path"]]
    assert (data.counts["pairs"], data.counts["labels"], data.counts["ties"]) == (
        pairs,
        labels,
        ties,
    )
