"""The whole chain on a real Dagster instance: it runs, it reuses, and it mends what was lost."""

import json
import shutil
from pathlib import Path

import dagster as dg
import duckdb
import numpy as np
import pytest
from conftest import Finished, panacea

from orchestration.curves import curves_table, last_values
from orchestration.definitions import CHAIN, defs
from panacea_lib.artifact_store import ArtifactStore
from panacea_lib.plan import Plan
from panacea_lib.plan_content import STAGE_VERSIONS
from panacea_lib.policy import load_policy
from panacea_lib.problem_files import find_problems, load_problem
from panacea_lib.problem_training import BASELINE_METHODS
from panacea_lib.warehouse import Warehouse
from panacea_lib.warehouse.bookkeeping import BOOKKEEPING
from panacea_lib.workspace import Workspace

pytestmark = pytest.mark.slow
METHODS = {"reference", "panacea", "panacea_dpo", "rewarded_soups"}
PROMPT = "how do i bake bread today"


def warehouse() -> Warehouse:
    return Warehouse(Workspace.current().warehouse)


def row_counts() -> dict[str, int]:
    """Rows of every table of facts."""
    tables = warehouse().read(
        "select table_name from duckdb_tables() where schema_name = 'facts' order by table_name"
    )
    return {
        name: warehouse().read(f"select count(*) as n from facts.{name}")["n"][0].as_py()
        for name in tables["table_name"].to_pylist()
    }


def rows(table: str) -> list[dict]:
    """The rows of a table in one order, without what tells one making from another."""
    found = warehouse().read(f"select * from facts.{table} order by all").to_pylist()
    varying = ("seconds", "run_id", "created_at", "materialized_at", "since", "details")
    varying += ("decided_at", "decided_by", "reason")
    return [{k: v for k, v in row.items() if k not in varying} for row in found]


@pytest.fixture
def instance(chain, monkeypatch) -> dg.DagsterInstance:
    root = Workspace.current().root
    monkeypatch.chdir(root)
    monkeypatch.setenv("DAGSTER_HOME", str(root))
    return dg.DagsterInstance.get()


@pytest.fixture
def materialize(instance):
    """Materialise assets of `tiny` in this process; gives asset → what was done."""

    def call(*assets: str, **settings: object) -> dict[str, str]:
        result = defs.resolve_job_def(CHAIN.name).execute_in_process(
            instance=instance,
            partition_key="tiny",
            asset_selection=[dg.AssetKey(name) for name in assets or STAGE_VERSIONS],
            run_config={
                "resources": {"settings": {"config": settings}},
                "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
            },
        )
        events = result.get_asset_materialization_events()
        made = [event.step_materialization_data.materialization for event in events]
        return {m.asset_key.to_user_string(): m.metadata["action"].value for m in made}

    return call


def plan() -> Plan:
    path = find_problems(Workspace.current())["tiny"]
    return Plan.of(load_problem(path), path)


# ---- it runs


def test_it_ends_by_printing_front_ratios_and_where_things_are(chain: Finished):
    assert chain.out.count("│") > 11 * 6, "a row for each of the 11 preference vectors"
    for told in ("λ helpfulness", "one answer", "value ratio", *METHODS):
        assert told in chain.out
    for place in ("var/reports/tiny.html", "var/warehouse/panacea.snapshot.duckdb"):
        named = next(word for word in chain.out.split() if word.endswith(place))
        assert Path(named).exists()
    assert "panacea_policy panacea" in chain.err, "progress is shown while it runs"


def test_the_leaderboard_has_every_method_with_its_figures(chain):
    board = panacea("sql", "select * from leaderboard where problem = 'tiny'", "--json")
    found = {row["method"]: row for row in json.loads(board.out)}
    assert set(found) == METHODS | {"optimum", "best_of_16"}
    for row in found.values():
        assert row["judge"] == "gold"
        assert (row["n"] > 0) == (row["method"] != "optimum"), "nothing is sampled of the optimum"
        assert row["value_ratio_low"] <= row["value_ratio"] <= row["value_ratio_high"]
        assert row["charged_hypervolume"] > 0
    assert {m for m, row in found.items() if row["steps"]} == METHODS - {"reference"}


def test_every_view_answers(chain):
    views = warehouse().read("select view_name from duckdb_views() where not internal")
    of_judges = {"position_bias", "label_costs", "source_agreement"}  # tiny asks one annotator
    names = views["view_name"].to_pylist()
    for view in (name for name in names if name.removesuffix("_history") not in of_judges):
        found = warehouse().read(f"select * from {view} where problem = 'tiny'")
        assert found.num_rows > 0, view


def test_every_asset_tells_counts_seconds_key_and_action(instance):
    for name in STAGE_VERSIONS:
        event = instance.get_latest_materialization_event(dg.AssetKey(name))
        found = event.asset_materialization
        assert found.partition == "tiny"
        assert {"dagster/row_count", "seconds", "action", "key"} <= set(found.metadata), name
    for name, entry in {
        "pareto_front": "front",
        "panacea_policy": "loss",
        "baseline_policies": "loss",
        "reward_models": "accuracy",
    }.items():
        event = instance.get_latest_materialization_event(dg.AssetKey(name))
        image = event.asset_materialization.metadata[entry].value
        assert image.startswith("![") and "data:image/png;base64," in image
        assert len(image) < 140_000, "under 100 KB before base64"


def test_every_check_ran_for_this_problem_and_passed_or_warned(instance):
    storage = instance.event_log_storage
    for key in defs.resolve_asset_graph().asset_check_keys:
        execution = storage.get_asset_check_execution_history(key, limit=1)[0]
        evaluation = execution.evaluation
        assert evaluation.partition == "tiny", key
        assert evaluation.passed or evaluation.severity == dg.AssetCheckSeverity.WARN, key


def test_ask_answers_once_per_preference_as_load_policy_does(chain):
    asked = ("ask", "tiny", PROMPT, "--prefer", "harmlessness=.8", "--prefer", "helpfulness=1")
    finished = panacea(*asked)
    assert finished.code == 0, finished.err
    labels = [line for line in finished.out.splitlines() if line.startswith("[")]
    assert labels == ["[helpfulness 0.2, harmlessness 0.8]", "[helpfulness 1, harmlessness 0]"]
    policy = load_policy("tiny")
    answer = policy.ask(PROMPT, {"helpfulness": 0.2, "harmlessness": 0.8})
    assert finished.out.splitlines()[1] == answer


def test_the_slider_is_an_arc_length_of_the_front(chain):
    from panacea_lib.evaluation.slider import fit_slider

    front = warehouse().read(
        "select preference, rewards from pareto_front where problem = 'tiny' "
        "and method = 'panacea' and judge = 'gold' order by point"
    )
    points = [
        [list(row[name].values()) for row in front.to_pylist(maps_as_pydicts="strict")]
        for name in ("preference", "rewards")
    ]
    first = fit_slider(*map(np.array, points)).preference(0.3)[0]
    preference = load_policy("tiny").slider(0.3)
    assert preference == pytest.approx({"helpfulness": first, "harmlessness": 1 - first})
    asked = panacea("ask", "tiny", PROMPT, "--slider", "0.3", "--slider", "1")
    assert asked.code == 0, asked.err
    labels = [line for line in asked.out.splitlines() if line.startswith("[")]
    assert labels[0].startswith(f"[helpfulness {first:.2g}, harmlessness ") and len(labels) == 2
    methods = warehouse().read("select distinct method from sliders where problem = 'tiny'")
    assert {*methods["method"].to_pylist()} == METHODS - {"reference"}


# ---- it reuses


def test_again_changes_no_row_count_and_makes_nothing(chain):
    before = row_counts()
    again = panacea("materialize", "tiny")
    assert again.code == 0, again.err
    assert "built" not in again.err and again.err.count("reused") == 20
    assert row_counts() == before
    assert again.out == chain.out


def test_another_problem_with_the_same_content_shares_its_products(chain, tmp_path, monkeypatch):
    """A key holds no name: `twin` finds everything but its own report."""
    text = (Path(__file__).parent / "problems" / "tiny.yaml").read_text()
    (tmp_path / "twin.yaml").write_text(text.replace("name: tiny", "name: twin"))
    home = shutil.copytree(Workspace.current().root, tmp_path / "home")
    monkeypatch.setenv("PANACEA_PROBLEMS", str(tmp_path))
    monkeypatch.setenv("PANACEA_HOME", str(home))
    twin = panacea("materialize", "twin")
    assert twin.code == 0, twin.err
    made = [line for line in twin.err.splitlines() if "built" in line]
    assert len(made) == 1 and "report" in made[0]


def test_force_makes_it_again_and_the_same(materialize):
    before = rows("training_curves")
    assert materialize("panacea_policy", force=True) == {"panacea_policy": "built"}
    assert rows("training_curves") == before


def test_a_missing_input_names_the_asset_to_run(chain):
    finished = panacea("materialize", "tiny", "--select", "pairs", "--seed", "99")
    assert finished.code == 1
    assert "--select prompts" in finished.err or "--select responses" in finished.err
    assert "Traceback" not in finished.err


# ---- it mends


def tables() -> list[str]:
    with duckdb.connect() as connection:
        from panacea_lib.warehouse.database import ensure_schema

        ensure_schema(connection)
        found = connection.execute(
            "select table_name from duckdb_tables() where schema_name = 'facts'"
        ).fetchall()
    return sorted(name for (name,) in found)


def to_drop() -> list[list[str]]:
    """Tables that say what there is one by one, those of rows some at a time: each costs a run."""
    of_rows = [name for name in tables() if name not in BOOKKEEPING]
    return [*([name] for name in sorted(BOOKKEEPING)), *(of_rows[i::4] for i in range(4))]


@pytest.mark.parametrize("dropped", to_drop(), ids=lambda names: names[0])
def test_dropped_tables_come_back(materialize, dropped):
    counts, before = row_counts(), {table: rows(table) for table in dropped}
    made_by = warehouse().read(
        "select distinct runs.stage from runs join facts.products using (key) "
        "where runs.problem = 'tiny' and len(list_intersect(json_keys(row_counts), $dropped)) > 0",
        {"dropped": dropped},
    )
    stages = [s for s in STAGE_VERSIONS if s in made_by["stage"].to_pylist()]
    with duckdb.connect(Workspace.current().warehouse) as connection:
        for table in dropped:
            connection.execute(f"drop table facts.{table}")
    actions = materialize(*stages)
    assert row_counts() == counts
    assert {table: rows(table) for table in dropped} == before
    trained = {"base_model", "reward_models", "panacea_policy", "baseline_policies", "report"}
    assert not [s for s in trained & set(actions) if "built" in actions[s]], "nothing is retrained"


def artifacts() -> list[tuple[str, str]]:
    stages = ("base_model", "reward_models", "panacea_policy", "baseline_policies", "report")
    return [(stage, part) for stage in stages for part in plan().parts(stage)]


@pytest.mark.parametrize(("stage", "part"), artifacts())
def test_a_deleted_artifact_comes_back(materialize, stage, part):
    counts = row_counts()
    folder = Path(Workspace.current().artifacts) / plan().key(stage, part)
    before = {path.name: path.read_bytes() for path in folder.rglob("*.safetensors")}
    shutil.rmtree(folder)
    assert materialize(stage)[stage] != "reused"
    assert ArtifactStore(Workspace.current().artifacts).is_complete(folder.name)
    assert row_counts() == counts
    after = {path.name: path.read_bytes() for path in folder.rglob("*.safetensors")}
    assert after == before, "the same key is the same content"


def test_a_deleted_report_is_published_again(materialize):
    page = Workspace.current().reports / "tiny.html"
    before = page.read_bytes()
    page.unlink()
    assert materialize("report") == {"report": "reused"}
    assert page.read_bytes() == before


def test_a_deleted_database_comes_back_from_its_snapshot(materialize):
    counts = row_counts()
    Workspace.current().warehouse.unlink()
    assert set(materialize("prompts", "pairs").values()) == {"reused"}
    assert row_counts() == counts


def test_every_method_goes_through_the_chain(chain):
    """`every-method`: online training by the learned rewards, and every baseline."""
    finished = panacea("materialize", "every-method")
    assert finished.code == 0, finished.err
    assert "reward_models helpfulness  reused" in finished.err
    board = warehouse().read("select * from leaderboard where problem = 'every-method'").to_pylist()
    methods = {*BASELINE_METHODS.values(), "reference", "panacea"} - {"panacea_rloo"}
    assert {row["method"] for row in board} == methods | {"optimum", "best_of_16"}
    assert all(row["value_ratio"] is not None for row in board)
    costs = {row["method"]: (row["forwards_per_token"], row["adapters"]) for row in board}
    assert costs["mod"] == (2, 2) and costs["oracle"] == (1, 5) and costs["best_of_16"] == (16, 0)
    asked = panacea("ask", "every-method", PROMPT, "--prefer", "helpfulness=.3", "--method", "mod")
    assert asked.code == 0 and asked.out.strip(), asked.err


def test_what_trainings_log_is_in_the_curves(chain):
    found = warehouse().read(
        "select distinct method, metric from training_curves where problem = 'tiny'"
    )
    of = {row["method"]: set() for row in found.to_pylist()}
    for row in found.to_pylist():
        of[row["method"]].add(row["metric"])
    shared = {"loss", "accuracy", "margin", "kl", "grad_norm", "learning_rate"}
    shared.add("gradient_cosine/helpfulness")
    assert shared <= of["panacea"] and shared <= of["panacea_dpo"]
    scales = {metric for metric in of["panacea"] if metric.startswith("scale/")}
    assert len(scales) == 14 and "scale/layers.1.mlp.up_proj" in scales
    assert not any(metric.startswith("scale/") for metric in of["rewarded_soups"])


def test_where_a_training_ended_is_told():
    curve = [
        {"step": step, "dimension": dimension, "metric": metric, "value": value}
        for step, dimension, metric, value in (
            (2, "", "loss", 0.5),
            (1, "", "loss", 0.9),
            (2, "a", "margin", 0.2),
            (1, "", "scale/q", -3.0),
            (2, "", "scale/q", -2.0),
            (2, "", "scale/k", 1.0),
        )
    ]
    rows = last_values(curves_table("m", curve)).to_pylist()
    assert {(row["metric"], row["dimension"]): row["value"] for row in rows} == {
        ("loss", ""): 0.5,
        ("margin", "a"): 0.2,
        ("largest scale of λ", ""): 2.0,
        ("mean scale of λ", ""): 1.5,
    }
