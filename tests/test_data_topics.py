"""What prompts are about: one column in every layout, one topic a prompt, accuracy by topic."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import yaml
from conftest import panacea
from data_rows import WIDE, map_rows, numbered

from orchestration.defs.rewards.training import _topics
from panacea_lib.data import PreferenceData, load_preference_data
from panacea_lib.data.mapping import map_parts
from panacea_lib.data.pairing import Part
from panacea_lib.errors import InputError
from panacea_lib.plan import Plan
from panacea_lib.problem_columns import (
    ChosenColumns,
    Columns,
    DemonstrationColumns,
    PairColumns,
    ResponseColumns,
)
from panacea_lib.problem_files import load_problem
from panacea_lib.records import PromptTopicRecord, to_table

WARM: Any = {"warm": "warm"}
PAIRS = PairColumns(layout="pairs", labels=WARM, topic="about")
ABOUT = ["bread", 7, 7.0, None, " locks ", ""]  # of row i: i % 6
NAMES = ["bread", "7", "7", None, "locks", None]


def rows(n: int = 30, **more: Any) -> list[dict[str, Any]]:
    """Rows of all layouts at once, each about something."""
    return [
        {
            "prompt": f"p{i}",
            "response_a": "x",
            "response_b": "y",
            "warm": [1, 0],
            "list": [{"response": "x", "is": 1}, {"response": "y", "is": 0}],
            "whole_x": f"\n\nHuman: p{i}\n\nAssistant: x",
            "whole_y": f"\n\nHuman: p{i}\n\nAssistant: y",
            "about": ABOUT[i % 6],
            "deep": {"about": ABOUT[i % 6]},
            **more,
        }
        for i in range(n)
    ]


def topics_of(data: PreferenceData) -> dict[str, str]:
    text = {prompt.prompt_id: prompt.text for prompt in data.prompts}
    return {text[told.prompt_id]: told.topic for told in data.topics}


EXPECTED = {f"p{i}": name for i in range(30) if (name := NAMES[i % 6])}


@pytest.mark.parametrize(
    "columns",
    [
        PAIRS,
        PAIRS.model_copy(update={"topic": "deep.about"}),
        ChosenColumns(
            layout="chosen", chosen="whole_x", rejected="whole_y", dimension="warm", topic="about"
        ),
        ResponseColumns(
            layout="responses", completions="list", scores={"warm": "is"}, topic="about"
        ),
    ],
    ids=lambda columns: f"{columns.layout} {columns.topic}",
)
def test_every_layout_has_topics(columns: Columns) -> None:
    data = map_rows(numbered(rows()), columns, WIDE, "here")
    assert topics_of(data) == EXPECTED and data.counts["topics"] == 20
    plain = map_rows(numbered(rows()), columns.model_copy(update={"topic": None}), WIDE, "here")
    assert plain.topics == [] and "topics" not in plain.counts


def test_single_responses_and_demonstrations_have_topics() -> None:
    """A prompt's rows need not all say it."""
    graded = [
        {"prompt": f"p{i}", "response": f"r{j}", "warm": j, "about": ABOUT[i % 6] if j else None}
        for i in range(30)
        for j in range(2)
    ]
    columns = ResponseColumns(layout="responses", scores=WARM, topic="about")
    assert topics_of(map_rows(numbered(graded), columns, WIDE, "here")) == EXPECTED
    parts = []
    for dimension in ("warm", "short"):
        shown = [{"instruction": r["prompt"], "output": dimension, **r} for r in rows()]
        columns = DemonstrationColumns(layout="demonstrations", dimension=dimension, topic="about")
        parts.append(Part(numbered(shown), columns, f"{dimension}.jsonl", dimension))
    assert topics_of(map_parts(parts, WIDE)) == EXPECTED


def test_one_prompt_has_one_topic() -> None:
    twice = [*rows(), *rows(1, about="locks", response_a="z")]
    says = r"here, row 31, column 'about': the topic is 'locks', yet 'bread' in row 1, which has "
    with pytest.raises(InputError, match=says + "the same prompt; give each prompt one topic, or"):
        map_rows(numbered(twice), PAIRS, WIDE, "here")
    graded = [
        {"prompt": "p", "response": f"r{i}", "warm": i, "about": "ab"[i // 2]} for i in range(3)
    ]
    columns = ResponseColumns(layout="responses", scores=WARM, topic="about")
    with pytest.raises(InputError, match=r"row 3, column 'about': the topic is 'b', yet 'a' in"):
        map_rows(numbered(graded), columns, WIDE, "here")


def test_of_several_parts_the_first_one_that_knows_is_believed() -> None:
    one, two = rows(), rows(40, about="all")
    parts = [Part(numbered(part), PAIRS, "here", name) for name, part in (("1", one), ("2", two))]
    others = {f"p{i}": "all" for i in range(40)}
    assert topics_of(map_parts(parts, WIDE)) == others | EXPECTED


@pytest.mark.parametrize("value", [2.5, True, ["bread"], float("nan")])
def test_what_is_no_topic_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match=r"row 1, column 'about': .* is no topic; write a word"):
        map_rows(numbered(rows(about=value)), PAIRS, WIDE, "here")


def problem(folder: Path, path: str, **columns: Any) -> Path:
    """A tiny problem whose pairs are graded; its file lies beside it."""
    values = {
        "name": "told",
        "dimensions": [{"name": "warm"}, {"name": "brief"}],
        "data": {
            "kind": "file",
            "path": path,
            "columns": {"layout": "pairs", "labels": {"warm": {"a": "a", "b": "b"}}, **columns},
            "split": {"validation": 0.3, "test": 0.1},
        },
        "labels": {"brief": [{"kind": "length"}]},
        "base_model": {
            **{"kind": "scratch", "tokenizer": "bpe", "vocab_size": 300, "hidden_size": 32},
            **{"layers": 1, "heads": 2, "steps": 10, "batch_size": 8, "max_length": 64},
        },
        "reference": {"prompts": 8, "per_prompt": 2, "max_new_tokens": 8},
        "rewards": {"steps": 20, "batch_size": 16, "margin": 1.0},
    }
    file = folder / "told.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


def pairs_file(folder: Path) -> str:
    """CSV, where an empty cell is unknown: a good answer beside a bad one, on three topics."""
    with (folder / "pairs.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["prompt", "response_a", "response_b", "a", "b", "about"])
        for i in range(120):
            sides = ("very good", "bad bad bad") if i % 2 else ("bad bad bad", "very good")
            writer.writerow([f"say {i}", *sides, 1 + 3 * (i % 2), 4 - 3 * (i % 2), NAMES[i % 6]])
    return "pairs.csv"


def test_a_file_has_the_column_or_is_refused(tmp_path: Path) -> None:
    name = pairs_file(tmp_path)
    path = problem(tmp_path, name, topic="about")
    data = load_preference_data(load_problem(path), path)
    assert len(data.topics) == 80 and {t.topic for t in data.topics} == {"bread", "7", "locks"}
    key = Plan.of(load_problem(path), path).key("prompts")
    path = problem(tmp_path, name)
    assert Plan.of(load_problem(path), path).key("prompts") != key
    path = problem(tmp_path, name, topic="subject")
    with pytest.raises(InputError, match=r"column 'subject': there is no such column"):
        load_preference_data(load_problem(path), path)


def test_reward_models_are_tried_on_the_topics_of_their_pairs() -> None:
    table = to_table([PromptTopicRecord("1", "bread")], PromptTopicRecord)
    run: Any = SimpleNamespace(problem=SimpleNamespace(data=None), rows=lambda *_: table)
    assert _topics(run, pa.table({"prompt_id": ["1", "2", "1"]})) == ["bread", None, "bread"]


@pytest.mark.slow
def test_the_chain_tells_accuracy_by_topic(tmp_path: Path, monkeypatch) -> None:
    problem(tmp_path, pairs_file(tmp_path), topic="about")
    monkeypatch.setenv("PANACEA_PROBLEMS", str(tmp_path))
    monkeypatch.setenv("PANACEA_HOME", str(tmp_path / "home"))
    stages = "prompts,base_model,responses,pairs,annotations,preference_labels,reward_models"
    finished = panacea("materialize", "told", "--select", stages)
    assert finished.code == 0, finished.err + finished.out

    def ask(sql: str) -> list[dict[str, Any]]:
        return json.loads(panacea("sql", sql, "--json").out)

    told = ask("select topic, n from reward_model_topics where dimension = 'warm' order by topic")
    assert [row["topic"] for row in told] == ["7", "bread", "locks"]
    (every,) = ask("select n from reward_model_quality where dimension = 'warm'")
    assert 0 < sum(row["n"] for row in told) < every["n"], "a third of the prompts has no topic"
    assert ask("select count(*) as n from facts.prompt_topics") == [{"n": 80}]
    apart = "select distinct abs(score_a - score_b) as apart from facts.annotations "
    assert ask(apart + "where source = 'data'") == [{"apart": 3.0}]
