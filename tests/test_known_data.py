"""Known data sets: each mapping on rows of the published columns, and what a problem may change."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from data_rows import preferred

from panacea_lib.data import load_preference_data
from panacea_lib.errors import InputError
from panacea_lib.problem import Problem
from panacea_lib.problem_data import FileData, HubData, SeveralData
from panacea_lib.problem_files import load_problem
from panacea_lib.problem_known import known_datasets
from panacea_lib.workspace import PROJECT_ROOT

SHARED = Path(os.environ.get("PANACEA_SHARED_DATA", PROJECT_ROOT.parent / "shared" / "data"))
GOOD, BAD = "good", "bad"
ASPECTS = ("helpfulness", "honesty", "instruction_following", "truthfulness")
RATED = {"Rating": "4", "Rationale": "clear", "Type": ["1"], "Rationale For Rating": "so"}
# Per data set: row i of its published columns, in which "good" is better wherever it can be told.
ROWS: dict[str, Any] = {
    "pku-saferlhf": lambda i: {
        "prompt": f"q{i}",
        "response_0": (GOOD, BAD)[i % 2],
        "response_1": (BAD, GOOD)[i % 2],
        "is_response_0_safe": True,
        "is_response_1_safe": True,
        "better_response_id": i % 2,
        "safer_response_id": i % 2,
    },
    "beavertails": lambda i: {
        "prompt": f"q{i % 60}",
        "response": BAD if i < 60 else GOOD,
        "category": {"privacy_violation": i < 60},
        "is_safe": i >= 60,
    },
    "helpsteer2": lambda i: {
        "prompt": f"q{i // 2}",
        "response": (GOOD, BAD)[i % 2],
        "helpfulness": 4 - i % 2,
        "correctness": 3 - i % 2,
        "coherence": 4 - (i % 4 == 1),  # often a tie
        "complexity": 2 - i % 2,
        "verbosity": 2 - i % 2,
    },
    "helpsteer2-preference": lambda i: {
        "split": ("train", "val")[i % 2],
        "prompt": f"q{i}",
        "response_1": GOOD,
        "response_2": BAD,
        "preference_strength": -1 - i % 3,
        "preference_statement": "@Response 1 is better",
    },
    "helpsteer3": lambda i: {
        "domain": "general",
        "language": "english",
        "context": [{"role": "user", "content": f"q{i}"}],
        "response1": BAD,
        "response2": GOOD,
        "overall_preference": 1 + i % 3,
        "individual_preference": [{"score": 2, "reasoning": "so"}],
    },
    "ultrafeedback": lambda i: {
        "source": "evol_instruct",
        "instruction": f"q{i}",
        "completions": [
            {
                "annotations": {
                    aspect: {**RATED, "Rating": rating if aspect != "honesty" or i else "N/A"}
                    for aspect in ASPECTS
                },
                "model": "x",
                "response": text,
            }
            for text, rating in ((GOOD, "5"), (BAD, "2"))
        ],
    },
    "hh-helpful": lambda i: {
        "chosen": f"\n\nHuman: q{i}\n\nAssistant: good",
        "rejected": f"\n\nHuman: q{i}\n\nAssistant: bad",
    },
    "hh-harmless": lambda i: {
        "chosen": f"\n\nHuman: q{i}\n\nAssistant: hm\n\nHuman: and?\n\nAssistant: good",
        "rejected": f"\n\nHuman: q{i}\n\nAssistant: hm\n\nHuman: and?\n\nAssistant: bad",
    },
}
DIMENSIONS = ["helpfulness", "harmlessness", "correctness", "coherence", "complexity"]
DIMENSIONS += ["verbosity", "honesty", "instruction_following", "truthfulness"]


def load(folder: Path, data: dict[str, Any], names: list[str]) -> tuple[Problem, Path]:
    """A problem of these dimensions; those that the data cannot label, a rule labels."""
    own = {d for known in known_datasets().values() for d in known.dimensions}
    others = [name for name in names if name not in own]
    values = {
        "name": "mine",
        "dimensions": [{"name": name} for name in names],
        "data": data,
        "labels": {name: [{"kind": "length"}] for name in others},
        "base_model": {"kind": "scratch"},
    }
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(values))
    return load_problem(path), path


def write(folder: Path, name: str, n: int = 120) -> str:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(ROWS[name](i)) + "\n" for i in range(n)))
    return path.name


@pytest.mark.parametrize("name", ROWS)
def test_each_mapping_reads_the_published_columns(name: str, tmp_path: Path) -> None:
    known = known_datasets()[name]
    names = [*known.dimensions, "brevity"]
    problem, file = load(
        tmp_path, {"kind": "known", "name": name, "path": write(tmp_path, name)}, names
    )
    assert isinstance(problem.data, FileData) and problem.data.license == known.license
    data = load_preference_data(problem, file)
    assert {text for _, text in preferred(data)} == {GOOD}
    decided = {a.dimension for a in data.annotations if a.label != 0.5}
    assert decided == set(known.dimensions)
    assert {a.annotator for a in data.annotations} == {name}
    assert {t.topic for t in data.topics} == ({"general"} if name == "helpsteer3" else set())


def test_every_known_data_set_is_tried_and_described() -> None:
    known = known_datasets()
    assert {*known} == {*ROWS, "hh", "alpaca"}
    for name, entry in known.items():
        assert entry.link.startswith("https://huggingface.co/datasets/"), name
        assert entry.license and entry.dimensions and set(entry.dimensions) <= set(DIMENSIONS)


def test_without_a_path_it_is_the_hubs(tmp_path: Path) -> None:
    data = {"kind": "known", "name": "ultrafeedback", "limit": 5, "revision": "abc"}
    problem, _ = load(tmp_path, data, ["honesty", "truthfulness"])
    assert isinstance(problem.data, HubData)
    assert (problem.data.dataset, problem.data.limit) == ("openbmb/UltraFeedback", 5)
    assert problem.data.revision == "abc" and problem.data.license == "mit"
    assert [*problem.data.columns.model_dump()["scores"]] == ["honesty", "truthfulness"]


def test_hub_folders_are_read_from_a_local_copy(tmp_path: Path) -> None:
    """`data_dir` names one folder of a data set, as in HelpSteer2 and HH."""
    for name, folder in (("hh-helpful", "helpful-base"), ("hh-harmless", "harmless-base")):
        (tmp_path / "hh" / folder).mkdir(parents=True)
        (tmp_path / "hh" / folder / "train.jsonl").write_text(
            (tmp_path / write(tmp_path, name)).read_text()
        )
    parts = [{"kind": "known", "name": n, "dataset": "./hh"} for n in ("hh-helpful", "hh-harmless")]
    problem, file = load(
        tmp_path, {"kind": "several", "parts": parts}, ["helpfulness", "harmlessness"]
    )
    data = load_preference_data(problem, file)
    assert {name: counts["pairs"] for name, counts in data.part_counts.items()} == {
        "hh-helpful": 120,
        "hh-harmless": 120,
    }


def test_one_name_for_several(tmp_path: Path) -> None:
    both = ["helpfulness", "harmlessness"]
    problem, _ = load(tmp_path, {"kind": "known", "name": "hh"}, both)
    assert isinstance(problem.data, SeveralData) and problem.data.license == "mit"
    assert [part.name for part in problem.data.parts] == ["hh-helpful", "hh-harmless"]
    beside = {"kind": "known", "name": "pku-saferlhf"}
    data = {"kind": "several", "parts": [{"kind": "known", "name": "hh"}, beside]}
    problem, _ = load(tmp_path, data, both)
    assert isinstance(problem.data, SeveralData) and len(problem.data.parts) == 3


def test_alpaca_shows_any_dimension(tmp_path: Path) -> None:
    for style in ("helpfulness", "wit"):
        rows = [
            {"instruction": f"do {i}", "input": "", "output": f"{style} {i}", "text": "unused"}
            for i in range(60)
        ]
        (tmp_path / f"{style}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    part = {"kind": "known", "name": "alpaca", "path": "helpfulness.jsonl"}
    wit = {"layout": "demonstrations", "dimension": "wit"}
    other = {"kind": "file", "path": "wit.jsonl", "columns": wit}
    data = {"kind": "several", "parts": [part, other]}
    values = {
        "name": "mine",
        "dimensions": [{"name": "helpfulness"}, {"name": "wit"}],
        "data": data,
        "training": {"method": "sft"},
        "base_model": {"kind": "scratch"},
    }
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(values))
    problem = load_problem(path)
    assert problem.demonstrated == ["helpfulness", "wit"]
    found = load_preference_data(problem, path)
    assert len(found.demonstrations) == 120 and found.counts["pairs"] == 60
    pairs = {**other, "columns": {"layout": "pairs", "labels": {"wit": "wit"}}}
    values["data"] = {**data, "parts": [part, pairs]}
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(InputError, match=r"no demonstrations of \['wit'\], which sft needs"):
        load_problem(path)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"name": "pku"}, r"line \d+, data\.name: no known data set is named 'pku'"),
        ({}, r"no known data set is named None"),
        ({"name": "hh", "path": "x"}, r"data\.path: hh is several data sets \(hh-helpful, hh-har"),
        ({"name": "pku-saferlhf", "pth": "x"}, r"data\.pth: unknown key"),
        ({"name": "hh-helpful"}, r"dimensions: unknown \['harmlessness'\]"),
    ],
)
def test_what_cannot_be_is_refused(data: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=says):
        load(tmp_path, {"kind": "known", **data}, ["helpfulness", "harmlessness"])


def test_hh(tmp_path: Path) -> None:
    """The real files: every row that is dropped is counted, and the chosen one is a or b."""
    files = {name: SHARED / f"hh_{name}_base.jsonl.gz" for name in ("helpful", "harmless")}
    if not all(path.is_file() for path in files.values()):
        pytest.skip(f"{SHARED} has no HH files (set PANACEA_SHARED_DATA to a folder that has them)")
    parts = [
        {"kind": "known", "name": f"hh-{name}", "path": str(path)} for name, path in files.items()
    ]
    problem, file = load(
        tmp_path, {"kind": "several", "parts": parts}, ["helpfulness", "harmlessness"]
    )
    data = load_preference_data(problem, file)
    told = {key: n for key, n in data.counts.items() if n and key.endswith("_dropped")}
    assert told == {"identical_dropped": 1, "empty_dropped": 8, "dialogues_dropped": 11}
    assert (data.counts["rows_read"], data.counts["pairs"]) == (3866, 3846)
    assert (data.counts["labels.helpfulness"], data.counts["labels.harmlessness"]) == (1942, 1904)
    shares = [a.label for a in data.annotations]
    assert 0.45 < sum(x or 0 for x in shares) / len(shares) < 0.55
