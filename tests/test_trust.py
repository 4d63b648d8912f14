"""What is said of an evaluation that must not be believed as it stands."""

import pyarrow as pa
import pytest

from orchestration.defs.evaluation.fronts import prompt_positions
from orchestration.trust import (
    estimated_optimum,
    refused_points,
    ruler_quality,
    unseen_points,
)
from panacea_lib.errors import InputError
from panacea_lib.records import PromptRecord
from panacea_lib.warehouse import Warehouse
from tests.small_warehouse import front, product, table


@pytest.fixture
def warehouse(tmp_path) -> Warehouse:
    warehouse = Warehouse(tmp_path / "panacea.duckdb")
    warehouse.save_products([front("front1", 0.8)])
    return warehouse


def test_too_few_effective_samples_are_said_with_how_many_would_do(warehouse):
    ruler = ruler_quality(warehouse, "demo", "front1", "proxy")
    assert ruler is not None
    assert "from 64 answers" in estimated_optimum(ruler)
    told = refused_points(ruler)
    assert told is not None
    assert "At 1 preference vectors" in told and "3.5 of the 64 answers" in told
    assert "about 92 would be needed" in told
    assert refused_points(ruler | {"points_refused": 0}) is None
    assert ruler_quality(warehouse, "demo", "front1", "gold") is None, "exact: nothing to say"


def test_points_that_the_hypervolume_does_not_see_are_named(warehouse):
    assert unseen_points(warehouse, "front1", "gold") is None
    rows = [
        ("panacea", "gold", "points_outside", 0.0, None, None, 64),
        ("panacea", "gold", "charged_points_outside", 2.0, None, None, 64),
        ("panacea_dpo", "proxy", "points_outside", 3.0, None, None, 64),
    ]
    metrics = {"front_metrics": table("method judge metric value low high n", *rows)}
    warehouse.save_products([(product("front2", "pareto_front"), metrics)])
    told = unseen_points(warehouse, "front2", "gold")
    assert told is not None and told.endswith("2 KL-charged of panacea.")


def test_answers_to_other_prompts_are_not_comparable():
    asked = [PromptRecord(name, "test", f"how? {name}") for name in ("p1", "p2")]
    rows = pa.table({"prompt_id": ["p2", "p1", "p2"]})
    assert prompt_positions(rows, "panacea", asked).tolist() == [1, 0, 1]
    for answered in (["p1", "p3"], ["p1"]):
        with pytest.raises(InputError, match="they are not comparable"):
            prompt_positions(pa.table({"prompt_id": answered}), "panacea", asked)
