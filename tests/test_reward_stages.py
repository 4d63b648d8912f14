"""The reward stages on a shared trunk that is not the base model: one model, rows per dimension."""

from pathlib import Path

import pytest
import yaml
from conftest import panacea
from small_models import small_base

from panacea_lib.plan import Plan
from panacea_lib.problem_files import load_problem
from panacea_lib.warehouse import Warehouse
from panacea_lib.workspace import Workspace

pytestmark = pytest.mark.slow
NAMES = ["helpfulness", "harmlessness"]
STAGES = "prompts,base_model,responses,pairs,annotations,preference_labels"
STAGES += ",reward_models,response_rewards"


@pytest.fixture(scope="module")
def problem(tmp_path_factory) -> Path:
    """A problem whose answers another model's trunk judges."""
    home = tmp_path_factory.mktemp("home")
    values = {
        "name": "judged",
        "extends": "tiny",
        "rewards": {
            "trunk": "shared",
            "margin": 1.0,
            "model": {"kind": "pretrained", "model": str(small_base()), "quantization": "none"},
        },
    }
    (home / "problems").mkdir()
    file = home / "problems" / "judged.yaml"
    file.write_text(yaml.safe_dump(values))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PANACEA_HOME", str(home))
        patch.setenv(
            "PANACEA_PROBLEMS", f"{home / 'problems'}:{Path(__file__).parent / 'problems'}"
        )
        finished = panacea("materialize", "judged", "--select", STAGES)
        assert finished.code == 0, finished.err + finished.out
        yield file


def test_one_model_gives_rows_to_every_dimension(problem):
    workspace = Workspace.current()
    plan = Plan.of(load_problem(problem, workspace), problem)
    warehouse = Warehouse(workspace.warehouse)
    (key,) = plan.keys("reward_models").values()
    quality = warehouse.read("from reward_model_quality").to_pylist()
    assert [row["dimension"] for row in quality] == sorted(NAMES)
    assert all(row["accuracy"] > 0.5 and row["length_only"] is not None for row in quality)
    assert len(warehouse.read("from reward_model_topics")) > 2
    assert len(warehouse.read("from reward_correlations")) == 1
    folder = workspace.root / "var" / "artifacts" / key
    assert (folder / "base" / "pretrained.json").exists(), "what it is made of is named inside"
    raw = warehouse.read(
        "select dimension, stddev(raw) as spread from facts.response_rewards group by all"
    ).to_pylist()
    assert {row["dimension"] for row in raw} == set(NAMES) and all(r["spread"] > 0 for r in raw)
    work = workspace.root / "var" / "artifacts" / ".work"
    assert not list(work.iterdir()), "chunks of scores go once their rows are saved"
