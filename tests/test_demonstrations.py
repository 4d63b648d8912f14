"""Two styles, each shown by a data set of its own: the chain up to the policy that sft trains."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow.parquet as parquet
import pytest
import yaml
from conftest import panacea

from orchestration.inputs import demonstration_table
from orchestration.stage import StageRun
from panacea_lib.data import load_preference_data
from panacea_lib.problem_files import load_problem
from panacea_lib.training.sft_trainer import read_rows

STAGES = "prompts,base_model,responses,pairs,annotations,preference_labels,panacea_policy"


def problem() -> dict[str, Any]:
    """As small as it gets; ten of the prompts are in both files."""
    dimensions = ("formal", "funny")
    return {
        "name": "styles",
        "dimensions": [{"name": name} for name in dimensions],
        "data": {
            "kind": "several",
            "parts": [
                {
                    "kind": "file",
                    "path": f"{name}.jsonl",
                    "columns": {"layout": "demonstrations", "dimension": name},
                }
                for name in dimensions
            ],
        },
        "base_model": {
            "kind": "scratch",
            "tokenizer": "bpe",
            "vocab_size": 300,
            "hidden_size": 32,
            "layers": 1,
            "heads": 2,
            "steps": 10,
            "batch_size": 8,
            "max_length": 64,
        },
        "reference": {"prompts": 8, "per_prompt": 2, "max_new_tokens": 8},
        "training": {"method": "sft", "steps": 4, "batch_size": 8},
        "baselines": {"methods": []},
        "evaluation": {"max_new_tokens": 8},
    }


@pytest.fixture
def styles(tmp_path: Path) -> Path:
    """The problem's file, its data beside it."""
    for name, start in (("formal", 0), ("funny", 30)):
        rows = [
            {"instruction": f"thing {i}?", "output": f"{name} words {i}"}
            for i in range(start, start + 40)
        ]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    path = tmp_path / "styles.yaml"
    path.write_text(yaml.safe_dump(problem()))
    return path


def test_training_reads_the_training_sides_demonstrations(styles: Path, tmp_path: Path) -> None:
    """All of them, also of prompts that only one dimension has and no pair therefore holds."""
    loaded = load_problem(styles)
    run = cast(StageRun, SimpleNamespace(problem=loaded, problem_file=styles))
    table = demonstration_table(run)
    found = load_preference_data(loaded, styles)
    training = [d for d in found.demonstrations if d.split == "train"]
    assert table.num_rows == len(training) > len(found.pairs) == 10
    parquet.write_table(table, tmp_path / "rows.parquet")
    rows = read_rows(tmp_path / "rows.parquet", loaded.dimension_names)
    assert rows.response == [d.response for d in training]
    assert [loaded.dimension_names[i] for i in rows.dimension] == [d.dimension for d in training]


@pytest.mark.slow
def test_the_chain_trains_on_them(styles: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PANACEA_PROBLEMS", str(styles.parent))
    monkeypatch.setenv("PANACEA_HOME", str(tmp_path / "home"))
    finished = panacea("materialize", "styles", "--select", STAGES)
    assert finished.code == 0, finished.err
    query = "select distinct dimension from training_curves where method = 'panacea'"
    curves = panacea("sql", query, "--json")
    assert {row["dimension"] for row in json.loads(curves.out)} >= {"formal", "funny"}
