"""What Dagster loads: every asset's spec, its checks, and that loading is light."""

import json
import subprocess
import sys

import dagster as dg
import pytest

from orchestration.columns import table_metadata
from orchestration.definitions import defs
from orchestration.partitions import PROBLEMS
from panacea_lib.plan_content import STAGE_VERSIONS
from panacea_lib.problem_files import find_problems
from panacea_lib.workspace import Workspace

# asset: group, upstream, kinds, checks (True: a failure stops what follows)
ASSETS = {
    "prompts": ("dataset", "", "duckdb python", {"no_prompt_on_two_sides": True}),
    "base_model": (
        "dataset",
        "prompts",
        "huggingface pytorch",
        {"base_model_is_finite": True},
    ),
    "responses": (
        "dataset",
        "base_model prompts",
        "duckdb pytorch",
        {"reference_samples_are_usable": True},
    ),
    "pairs": (
        "preferences",
        "prompts responses",
        "duckdb python",
        {"pairs_join_their_texts": True},
    ),
    "annotations": (
        "preferences",
        "base_model pairs prompts responses",
        "duckdb python",
        {},
    ),
    "preference_labels": (
        "preferences",
        "annotations pairs prompts responses",
        "duckdb python",
        {"labels_cover_every_dimension": True},
    ),
    "reward_models": (
        "rewards",
        "base_model pairs preference_labels prompts responses",
        "huggingface pytorch",
        {"reward_models_beat_the_majority": True, "reward_models_beat_length": False},
    ),
    "response_rewards": (
        "rewards",
        "base_model prompts responses reward_models",
        "duckdb pytorch",
        {"reward_scale_is_finite": True},
    ),
    "panacea_policy": (
        "policies",
        "base_model pairs preference_labels prompts response_rewards responses",
        "huggingface pytorch",
        {"adapter_changed_and_is_finite": True},
    ),
    "baseline_policies": (
        "policies",
        "base_model pairs preference_labels prompts response_rewards responses",
        "huggingface pytorch",
        {"adapters_changed_and_are_finite": True},
    ),
    "generations": (
        "evaluation",
        "base_model baseline_policies panacea_policy preference_labels prompts response_rewards "
        "reward_models",
        "duckdb pytorch",
        {"answers_are_scored": True},
    ),
    "pareto_front": (
        "evaluation",
        "base_model generations preference_labels prompts",
        "duckdb python",
        {
            "front_has_every_preference": True,
            "policy_stays_inside_the_grammar": False,
            "optimum_is_known": False,
            "hypervolume_sees_every_point": False,
        },
    ),
    "report": (
        "evaluation",
        "baseline_policies generations panacea_policy pareto_front reward_models",
        "html",
        {"report_is_published": True},
    ),
    "champion": (
        "evaluation",
        "base_model generations panacea_policy pareto_front preference_labels prompts "
        "response_rewards reward_models",
        "duckdb pytorch",
        {"champion_is_kept": False},
    ),
}
HEAVY = "torch transformers peft trl datasets bitsandbytes matplotlib pandas moocore accelerate"


@pytest.fixture(scope="module")
def specs() -> dict[str, dg.AssetSpec]:
    return {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}


@pytest.fixture(scope="module")
def check_specs() -> list[dg.AssetCheckSpec]:
    graph = defs.resolve_asset_graph()
    return [graph.get_check_spec(key) for key in graph.asset_check_keys]


def test_definitions_are_loadable():
    dg.Definitions.validate_loadable(defs)


def test_the_graph_is_the_one_of_the_design(specs, check_specs):
    found = {
        name: (
            spec.group_name,
            " ".join(sorted(dep.asset_key.to_user_string() for dep in spec.deps)),
            " ".join(sorted(spec.kinds)),
            {c.name: c.blocking for c in check_specs if c.asset_key == spec.key},
        )
        for name, spec in specs.items()
    }
    assert found == ASSETS
    assert list(ASSETS) == list(STAGE_VERSIONS), "a stage is an asset, in the chain's order"


def test_every_asset_says_what_and_whose_it_is(specs):
    for name, spec in specs.items():
        assert spec.description and len(spec.description) > 40, name
        assert spec.owners == ["team:alignment"], name
        assert spec.partitions_def == PROBLEMS, name
        schema = spec.metadata["dagster/column_schema"].schema
        assert schema.columns and all(c.type for c in schema.columns), name
        assert spec.code_version == str(STAGE_VERSIONS[name])


def test_every_check_is_partitioned_and_explains_itself(check_specs):
    for spec in check_specs:
        assert spec.partitions_def == PROBLEMS, "else one problem's pass hides another's failure"
        assert spec.description, spec.name


def test_problems_are_partitions():
    assert list(PROBLEMS.get_partition_keys()) == sorted(find_problems(Workspace.current()))


def test_the_chain_is_one_job_with_everything_and_settings_in_the_launchpad(specs):
    job = defs.resolve_job_def("chain")
    assert {key.to_user_string() for key in job.asset_layer.selected_asset_keys} == set(specs)
    config = {"resources": {"settings": {"config": {"seed": 1, "max_steps": 5, "force": True}}}}
    assert dg.validate_run_config(job, config)
    assert dg.validate_run_config(job, {})
    wrong = {"resources": {"settings": {"config": {"sede": 1}}}}
    with pytest.raises(dg.DagsterInvalidConfigError):
        dg.validate_run_config(job, wrong)


def test_runs_stay_in_one_process():
    assert defs.executor is dg.in_process_executor


def test_columns_are_the_warehouse_s_own():
    schema = table_metadata("preference_labels")["dagster/column_schema"].schema
    columns = {column.name: column for column in schema.columns}
    assert columns["label"].type == "double"
    assert columns["label"].constraints.nullable
    assert not columns["pair_id"].constraints.nullable
    assert "0.5 is a tie" in (columns["label"].description or "")


def test_loading_definitions_imports_nothing_heavy():
    code = (
        "import sys, json, orchestration.definitions, orchestration.cli, orchestration.chain; "
        f"print(json.dumps([m for m in {HEAVY.split()!r} if m in sys.modules]))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(found.stdout) == []
    assert "Warning" not in found.stderr
