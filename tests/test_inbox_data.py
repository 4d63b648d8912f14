"""Received files as part of a problem's data: what they change, and what they leave as it is."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from inbox_files import WARM, drop_folder, loaded, real_problem, take, write_rows

from panacea_lib.data import load_preference_data, load_world_files
from panacea_lib.data.inbox import Received, Rejected
from panacea_lib.errors import InputError
from panacea_lib.plan import Plan
from panacea_lib.plan_content import STAGE_VERSIONS
from panacea_lib.problem_data import SeveralData, WorldData
from panacea_lib.problem_files import find_problems, load_problem
from panacea_lib.records import PromptRecord
from panacea_lib.workspace import PROJECT_ROOT, Workspace
from panacea_lib.world.data import world_prompts

TINY = Path(__file__).parent / "problems" / "tiny.yaml"
BAKE = "how do i bake bread today"
DEMO = PROJECT_ROOT / "assets_data" / "problems" / "demo.yaml"


def keys(file: Path, workspace: Workspace, **settings: Any) -> dict[str, str]:
    plan = Plan.of(loaded(file, workspace), file, **settings)
    return {f"{s}/{part}": plan.key(s, part) for s in STAGE_VERSIONS for part in plan.parts(s)}


def drop_world_pairs(workspace: Workspace, problem: str, rows: list[tuple[str, ...]]) -> None:
    lines = ["prompt,response_a,response_b,helpfulness,harmlessness"]
    lines += [",".join(row) for row in rows]
    (drop_folder(workspace, problem) / "pairs.csv").write_text("\n".join(lines) + "\n")


def drawn(file: Path = TINY, seed: int | None = None) -> list[PromptRecord]:
    problem = load_problem(file)
    assert isinstance(problem.data, WorldData)
    return world_prompts(problem.data, problem.seed if seed is None else seed)


# ---- keys


def test_an_inbox_changes_no_key_before_it_has_received_something(tmp_path):
    workspace = Workspace(tmp_path / "home")
    file = real_problem(tmp_path / "with")
    without = real_problem(tmp_path / "without", inbox=None)
    before = keys(file, workspace)
    assert before == keys(without, workspace)
    write_rows(drop_folder(workspace, "mine") / "new.jsonl", 3, "q")
    assert keys(file, workspace) == before, "what lies in the drop folder is not yet data"
    take(file, workspace)
    after = keys(file, workspace)
    assert not {key for key in after if after[key] == before[key]}, "all follows from the data"
    assert keys(without, workspace) == before, "nobody says how they would be read"


def test_keys_see_contents_not_places_or_times(tmp_path):
    file = real_problem(tmp_path)
    found = []
    for home, later in (("one", 60), ("two", 90_000)):
        workspace = Workspace(tmp_path / home)
        write_rows(drop_folder(workspace, "mine") / "new.jsonl", 3, "q")
        take(file, workspace, later=later)
        found.append(keys(file, workspace))
    assert found[0] == found[1]


def test_in_the_world_prompts_and_base_model_keep_their_keys(tmp_path):
    workspace = Workspace(tmp_path)
    before = keys(TINY, workspace)
    drop_world_pairs(workspace, "tiny", [(drawn()[0].text, "one", "two", "a", "b")])
    assert isinstance(take(TINY, workspace)[0], Received)
    after = keys(TINY, workspace)
    assert {key for key in after if after[key] == before[key]} == {"prompts/", "base_model/"}
    again = dict(after)
    drop_world_pairs(workspace, "tiny", [(drawn()[0].text, "one", "three", "a", "b")])
    take(TINY, workspace)
    assert keys(TINY, workspace)["responses/"] != again["responses/"]


# ---- real data


def test_received_files_are_parts_of_the_data_in_the_order_in_which_they_came(tmp_path):
    workspace, file = Workspace(tmp_path / "home"), real_problem(tmp_path)
    for name, later in (("zebra.jsonl", 60), ("ant hill.jsonl", 120)):
        write_rows(drop_folder(workspace, "mine") / name, 3, name[0])
        take(file, workspace, later=later)
    problem = loaded(file, workspace)
    assert isinstance(problem.data, SeveralData)
    names = [part.name for part in problem.data.parts]
    assert names[0] is None
    assert [name and name[:-17] for name in names[1:]] == ["zebra", "ant-hill"]
    data = load_preference_data(problem, file)
    assert data.counts["pairs"] == 46
    assert [counts["pairs"] for counts in data.part_counts.values()] == [40, 3, 3]


def test_a_part_of_several_keeps_its_place_and_the_split_is_the_data_s(tmp_path):
    write_rows(tmp_path / "second.jsonl", 10, "s")
    parts = [{"kind": "file", "path": f"{n}.jsonl", "columns": WARM} for n in ("first", "second")]
    split = {"validation": 0.3, "test": 0.2}
    file = real_problem(tmp_path, data={"kind": "several", "parts": parts, "split": split})
    workspace = Workspace(tmp_path / "home")
    before = load_preference_data(loaded(file, workspace), file)
    write_rows(drop_folder(workspace, "mine") / "new.jsonl", 3, "q")
    take(file, workspace)
    problem = loaded(file, workspace)
    assert isinstance(problem.data, SeveralData) and len(problem.data.parts) == 3
    after = load_preference_data(problem, file)
    assert after.prompts[: len(before.prompts)] == before.prompts
    assert after.annotations[: len(before.annotations)] == before.annotations


def test_a_pair_that_is_there_already_gets_one_more_opinion(tmp_path):
    workspace, file = Workspace(tmp_path / "home"), real_problem(tmp_path)
    row = {"prompt": "p0", "response_a": "y", "response_b": "x", "warm": "a", "s": None}
    (drop_folder(workspace, "mine") / "new.jsonl").write_text(json.dumps(row) + "\n")
    take(file, workspace)
    data = load_preference_data(loaded(file, workspace), file)
    assert data.counts["pairs"] == 40 and data.counts["opinions_merged"] == 1


def test_demonstrations_join_demonstrations(tmp_path):
    shows = {"layout": "demonstrations", "prompt": "q", "response": "r", "dimension": "warm"}
    cold = {**shows, "dimension": "short"}
    for name in ("warm", "cold"):
        rows = [{"q": f"p{i}", "r": f"{name} {i}"} for i in range(40)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    parts = [
        {"kind": "file", "path": "warm.jsonl", "columns": shows},
        {"kind": "file", "path": "cold.jsonl", "columns": cold},
    ]
    split = {"validation": 0.3, "test": 0.2}
    data = {"kind": "several", "parts": parts, "split": split}
    file = real_problem(tmp_path, data=data, inbox={"columns": shows})
    workspace = Workspace(tmp_path / "home")
    (drop_folder(workspace, "mine") / "a.jsonl").write_text('{"q": "p1", "r": "warmer"}\n')
    (received,) = take(file, workspace)
    assert isinstance(received, Received) and received.counts["demonstrations"] == 1
    found = load_preference_data(loaded(file, workspace), file)
    assert found.counts["demonstrations"] == 81 and found.counts["pairs"] == 41
    with pytest.raises(InputError, match="the data has no demonstrations of warm"):
        load_problem(real_problem(tmp_path / "other", inbox={"columns": shows}))


# ---- the embedded world


def test_pairs_are_about_the_prompts_that_the_problem_draws(tmp_path):
    workspace, prompts = Workspace(tmp_path), drawn()
    every = {prompt.text for prompt in drawn(DEMO)}
    other = sorted(every - {prompt.text for prompt in prompts})[0]
    for asked, remedy in ((other, "did you mean"), ("what?", "panacea sql")):
        drop_world_pairs(
            workspace, "tiny", [(prompts[0].text, "x", "y", "a", "b"), (asked, "x", "y", "a", "b")]
        )
        (rejected,) = take(TINY, workspace)
        assert isinstance(rejected, Rejected)
        assert f"pairs.csv, line 3, column 'prompt': {asked!r} is none of" in rejected.reason
        assert remedy in rejected.reason


def test_what_is_received_has_the_ids_and_sides_of_the_world(tmp_path):
    workspace, prompts = Workspace(tmp_path), drawn()
    rows = [(p.text, "gibberish", "i can not help with that", "1", "0.25") for p in prompts]
    drop_world_pairs(workspace, "tiny", rows)
    take(TINY, workspace)
    found = load_world_files(loaded(TINY, workspace), TINY, prompts)
    assert found.prompts == prompts
    assert [pair.split for pair in found.pairs] == [prompt.split for prompt in prompts]
    assert {(a.dimension, a.label) for a in found.annotations} == {
        ("helpfulness", 1.0),
        ("harmlessness", 0.25),
    }


def test_under_another_seed_pairs_about_prompts_that_are_not_drawn_are_counted(tmp_path):
    workspace, prompts = Workspace(tmp_path), drawn()
    drop_world_pairs(workspace, "tiny", [(p.text, "x", "y", "a", "b") for p in prompts])
    take(TINY, workspace)
    others = drawn(seed=1)
    shared = {p.text for p in prompts} & {p.text for p in others}
    assert 0 < len(shared) < len(prompts)
    found = load_world_files(loaded(TINY, workspace), TINY, others)
    assert len(found.pairs) == len(shared) == found.counts["pairs"]
    assert found.counts["other_prompts_dropped"] == len(prompts) - len(shared)


def test_a_problem_may_name_files_of_its_own_beside_the_world(tmp_path):
    rows = {"prompt": drawn()[0].text, "response_a": "x", "response_b": "y", "warm": "a"}
    (tmp_path / "more.jsonl").write_text(json.dumps(rows) + "\n")
    columns = {"layout": "pairs", "labels": {"helpfulness": {"preferred": "warm"}}}
    more = {"kind": "file", "path": "more.jsonl", "columns": columns}
    values = {"name": "own", "extends": "tiny", "data": {"kind": "world", "files": [more]}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(values))
    problem = load_problem(tmp_path / "own.yaml")
    found = load_world_files(problem, tmp_path / "own.yaml", drawn())
    assert len(found.pairs) == 1
    shutil.copytree(tmp_path, tmp_path / "child")
    (tmp_path / "child" / "own.yaml").unlink()
    (tmp_path / "child" / "heir.yaml").write_text("name: heir\nextends: own\n")
    inherited = _load_beside(tmp_path / "child" / "heir.yaml", tmp_path)
    assert inherited.files[0].path == str(tmp_path / "more.jsonl"), "the path is its writer's"


def _load_beside(file: Path, folder: Path) -> WorldData:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PANACEA_PROBLEMS", f"{folder}:{TINY.parent}")
        data = load_problem(file).data
    assert isinstance(data, WorldData)
    return data


# ---- the section


def test_dimensions_of_its_own_take_over_no_inbox(tmp_path):
    text = "name: other\nextends: tiny\ndimensions: [{name: conciseness}, {name: completeness}]\n"
    (tmp_path / "other.yaml").write_text(text)
    assert load_problem(tmp_path / "other.yaml").inbox is None
    (tmp_path / "same.yaml").write_text("name: same\nextends: tiny\n")
    assert load_problem(tmp_path / "same.yaml").inbox == load_problem(TINY).inbox is not None


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"layout": "pairs", "labels": {"cold": "x"}}, r"inbox\.columns: maps \['cold'\]"),
        ({"layout": "pairs", "topic": "about"}, r"inbox\.columns\.topic: the embedded world"),
        ({"layout": "pear"}, r"inbox\.columns"),
    ],
)
def test_a_mapping_that_cannot_be_is_refused(tmp_path, columns, message):
    values = {"name": "bad", "extends": "tiny", "inbox": {"columns": columns}}
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(InputError, match=message):
        load_problem(tmp_path / "bad.yaml")


def test_the_documented_file_is_received_by_the_demo(tmp_path):
    """The CSV of docs/inbox.md, as it stands there."""
    page = (PROJECT_ROOT / "docs" / "inbox.md").read_text("utf-8")
    text = page.split("```csv\n")[1].split("```")[0]
    workspace = Workspace(tmp_path)
    for problem in ("demo", "demo-small"):
        (drop_folder(workspace, problem) / "monday.csv").write_text(text)
        (received,) = take(find_problems(Workspace.current())[problem], workspace)
        assert isinstance(received, Received), received
        assert received.counts["pairs"] == text.count("\n") - 1
    assert BAKE in {prompt.text for prompt in drawn(DEMO)}
