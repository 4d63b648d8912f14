"""The views, the page of ready queries, and the fence around SQL from people."""

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_warehouse import (
    DIMENSIONS,
    GRID,
    METHODS,
    annotations,
    champions,
    dataset,
    front,
    generations,
    models,
    sampled,
)

from panacea_lib.errors import InputError, MissingUpstreamError
from panacea_lib.warehouse import Warehouse, run_query, to_csv, to_json

PAGE = Path(__file__).parent.parent / "docs" / "sql.md"


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory) -> Iterator[Warehouse]:
    """A problem `demo` evaluated twice, and a problem `copy` that shares its data."""
    warehouse = Warehouse(tmp_path_factory.mktemp("sql") / "panacea.duckdb")
    warehouse.save_products(
        [*dataset("1"), *annotations(), sampled(), *models(), *generations(), front("front1", 0.8)]
    )
    warehouse.save_products([front("front2", 0.9)])
    champions(warehouse)
    for stage, key in [
        ("prompts", "prompts1"),
        ("pairs", "pairs1"),
        ("preference_labels", "labels1"),
    ]:
        warehouse.mark_current("copy", stage, "", key)
    return warehouse


def ask(warehouse: Warehouse, sql: str) -> list[dict]:
    return run_query(warehouse, sql).to_pylist(maps_as_pydicts="strict")


def test_leaderboard_has_the_best_judge_best_method_first(warehouse):
    rows = ask(warehouse, "from leaderboard")
    assert [row["method"] for row in rows] == METHODS
    assert {row["judge"] for row in rows} == {"gold"}
    assert rows[0]["problem"] == "demo"
    assert [rows[0][c] for c in ("value_ratio", "value_ratio_low", "value_ratio_high", "n")] == [
        pytest.approx(0.9), pytest.approx(0.85), pytest.approx(0.95), 64,
    ]  # fmt: skip
    assert (rows[0]["steps"], rows[0]["tokens"], rows[0]["stored_parameters"]) == (400, 10_000, 500)
    assert rows[2]["steps"] is None, "the reference policy was not trained"
    wanted = "hypervolume charged_hypervolume inner_product sparsity spacing kl seconds"
    assert set(wanted.split()) <= set(rows[0])


def test_history_keeps_every_evaluation(warehouse):
    rows = ask(warehouse, "from leaderboard_history where method = 'panacea'")
    assert [(row["key"], row["is_current"]) for row in rows] == [
        ("front1", False),
        ("front2", True),
    ]
    assert [row["value_ratio"] for row in rows] == [0.8, 0.9]
    assert all(row["steps"] == 400 and row["created_at"] for row in rows)
    assert len(ask(warehouse, "from front_points_history")) == 2 * len(
        ask(warehouse, "from front_points")
    )


def test_the_champion_has_the_figures_it_was_decided_on_and_history_all_decisions(warehouse):
    (champion,) = ask(warehouse, "from champions")
    assert (champion["problem"], champion["policy_key"]) == ("demo", "second")
    assert (champion["judge"], champion["value_ratio"]) == ("gold", 0.9)
    rows = ask(warehouse, "from champion_history")
    assert [(row["action"], row["policy_key"], row["is_current"]) for row in rows] == [
        ("promoted", "first", False),
        ("refused", "weak", False),
        ("promoted", "second", True),
    ]
    assert champion["since"] == rows[2]["decided_at"]


def test_proxy_is_the_best_judge_where_there_is_no_gold(tmp_path):
    warehouse = Warehouse(tmp_path / "w.duckdb")
    warehouse.save_products([front("front1", 0.8, judges=("proxy",))])
    assert {row["judge"] for row in ask(warehouse, "from leaderboard")} == {"proxy"}


def test_pareto_front_reads_in_the_order_of_the_dimensions(warehouse):
    rows = ask(warehouse, "from pareto_front where method = 'panacea' and judge = 'gold'")
    assert [list(row["preference"].items()) for row in rows] == [
        list(zip(DIMENSIONS, weights, strict=True)) for weights in GRID
    ]
    assert list(rows[2]["rewards"].items()) == [("helpfulness", 1.0), ("harmlessness", 0.0)]
    assert rows[0]["kl"] == 0.3 and rows[0]["optimal_value"] == 0.9 and rows[0]["n"] == 64
    assert all(row["on_front"] for row in rows)


def test_dominated_points_are_not_on_the_front(warehouse):
    rows = ask(warehouse, "from pareto_front where method = 'panacea_dpo' and judge = 'gold'")
    assert [row["on_front"] for row in rows] == [True, False, True]


def test_a_slider_s_positions_have_a_preference_and_every_column_a_comment(warehouse):
    rows = ask(warehouse, "from sliders where problem = 'demo' and method = 'panacea'")
    assert [(row["position"], list(row["preference"].values())) for row in rows] == [
        (0, [0, 1]), (0.25, [0.5, 0.5]), (1, [1, 0]),
    ]  # fmt: skip
    assert list(rows[0]["preference"]) == DIMENSIONS
    assert {(row["judge"], row["calibrated"]) for row in rows} == {("gold", True)}
    assert len(ask(warehouse, "from sliders_history")) == 2 * len(ask(warehouse, "from sliders"))
    columns = ask(
        warehouse,
        "select column_name, comment from duckdb_columns() where table_name like 'sliders%' "
        "and database_name = 'panacea' and schema_name = 'main'",
    )
    assert len(columns) == 6 + 9 and all(column["comment"] for column in columns)


def test_labels_are_judged_per_dimension_and_pair_of_dimensions(warehouse):
    rows = {
        row["dimension"]: row for row in ask(warehouse, "from label_quality where problem = 'demo'")
    }
    helpful, harmless = rows["helpfulness"], rows["harmlessness"]
    assert (helpful["pairs"], helpful["labels"], helpful["coverage"]) == (4, 3, 0.75)
    assert (helpful["ties"], helpful["failed"], helpful["mean_label"]) == (1, 0, pytest.approx(0.8))
    assert helpful["sources"] == {"world": 2, "file": 1}
    assert (harmless["labels"], harmless["failed"]) == (2, 1)
    (conflict,) = ask(warehouse, "from preference_conflicts where problem = 'demo'")
    assert (conflict["pairs"], conflict["disagreements"], conflict["disagreement"]) == (2, 1, 0.5)


def test_annotators_are_compared_and_a_judge_is_seen_through(warehouse):
    rows = {row["annotator"]: row for row in ask(warehouse, "from label_sources")}
    assert {name: (row["pairs"], row["failed"], row["ties"]) for name, row in rows.items()} == {
        "ann": (3, 0, 0),
        "bob": (3, 0, 1),
        "j": (3, 1, 0),
    }
    assert rows["j"]["coverage"] == 0.75 and rows["j"]["commonest_failure"] == "not JSON"
    (bias,) = ask(warehouse, "from position_bias")
    assert (bias["pairs"], bias["first_preferred"], bias["consistent"]) == (2, 0.75, 0.5)
    agreement = {
        (row["annotator_a"], row["annotator_b"]): (row["pairs"], row["agreement"])
        for row in ask(warehouse, "from source_agreement")
    }
    assert agreement == {
        ("people ann", "people bob"): (3, pytest.approx((1 + 0 + 0.5) / 3)),
        ("judge j", "people ann"): (3, pytest.approx((1 + 0.5 + 1) / 3)),
        ("judge j", "people bob"): (3, pytest.approx((1 + 0.5 + 0.5) / 3)),
    }
    together, ann = ask(warehouse, "from label_agreement where problem = 'demo'")
    assert (together["annotator"], together["alpha"], together["with_majority"]) == ("", 0.4, None)
    assert (ann["alpha"], ann["with_majority"], ann["pairs"]) == (0.3, 0.75, 3)
    (cost,) = ask(warehouse, "from label_costs")
    assert (cost["requests"], cost["cached"], cost["tokens"], cost["cost"]) == (4, 2, 660, 0.5)


def test_a_dimension_without_labels_is_shown_as_such(tmp_path):
    warehouse = Warehouse(tmp_path / "w.duckdb")
    prompts, pairs, (labels, tables) = dataset("1")
    only = tables["preference_labels"].slice(0, 3)  # helpfulness
    warehouse.save_products([prompts, pairs, (labels, {"preference_labels": only})])
    rows = {row["dimension"]: row for row in ask(warehouse, "from label_quality")}
    assert (rows["harmlessness"]["labels"], rows["harmlessness"]["coverage"]) == (0, 0)


def test_reward_models_and_curves_and_runs(warehouse):
    rows = ask(warehouse, "from reward_model_quality")
    assert [row["dimension"] for row in rows] == sorted(DIMENSIONS)
    assert [rows[0][c] for c in ("accuracy", "accuracy_low", "accuracy_high", "n")] == [
        0.7,
        0.6,
        0.8,
        500,
    ]
    assert (rows[0]["majority"], rows[0]["best_possible"]) == (0.5, 0.75)
    assert [rows[0][c] for c in ("length_only", "temperature", "ece", "ece_scaled")] == [
        0.6, 1.25, 0.06, 0.02,
    ]  # fmt: skip
    assert rows[0]["n"] == 500, "pairs with a winner, not responses"
    assert len(ask(warehouse, "from training_curves where method = 'panacea'")) == 8 + 2 + 2
    (run,) = ask(warehouse, "from runs where stage = 'preference_labels' and problem = 'demo'")
    assert (run["run_id"], run["seconds"], run["seed"], run["rows"]) == ("run-1", 1.5, 7, 9)


def test_reward_models_are_shown_by_topic_and_by_how_sure_they_are(warehouse):
    topics = ask(warehouse, "from reward_model_topics")
    assert [(row["dimension"], row["topic"], row["accuracy"], row["n"]) for row in topics] == [
        (name, "bake bread", 0.8, 100) for name in sorted(DIMENSIONS)
    ]
    bins = ask(warehouse, "from reward_calibration where dimension = 'helpfulness'")
    assert [(row["scaled"], row["bin"], row["predicted"]) for row in bins] == [
        (False, 0, 0.6), (False, 1, 0.8), (True, 0, 0.6), (True, 1, 0.8),
    ]  # fmt: skip


def test_rewards_are_correlated_within_prompts_over_the_base_model_s_samples(warehouse):
    """Lengths 2 and 4, 6 and 7: less their means ±1 and ±0.5, rewards ±1: r = 3 / √(2.5 · 4)."""
    (both,) = ask(warehouse, "from reward_correlations")
    assert both["correlation"] == pytest.approx(-1) and both["responses"] == 4
    lengths = {row["dimension"]: row for row in ask(warehouse, "from reward_lengths")}
    expected = 3 / (2.5 * 4) ** 0.5
    assert lengths["helpfulness"]["correlation"] == pytest.approx(expected)
    assert lengths["harmlessness"]["correlation"] == pytest.approx(-expected)
    assert lengths["helpfulness"]["per_100_characters"] == pytest.approx(100 * 3 / 2.5)
    assert (lengths["helpfulness"]["prompts"], lengths["helpfulness"]["responses"]) == (2, 4)


def test_sample_responses_show_prompt_preference_and_the_best_judge(warehouse):
    rows = ask(warehouse, "from sample_responses where method = 'panacea'")
    assert len(rows) == 3
    assert rows[2]["prompt"] == "how? 1" and rows[2]["response"] == "answer 2"
    assert rows[2]["preference"] == {"helpfulness": 1.0, "harmlessness": 0.0}
    assert (rows[2]["judge"], rows[2]["rewards"]) == (
        "gold",
        {"helpfulness": 1.0, "harmlessness": 0.0},
    )


def test_unjudged_responses_are_shown_too(tmp_path):
    warehouse = Warehouse(tmp_path / "w.duckdb")
    made, tables = generations()[0]
    unjudged = tables | {"generation_rewards": tables["generation_rewards"].slice(0, 0)}
    warehouse.save_products([*dataset("1"), (made, unjudged)])
    rows = ask(warehouse, "from sample_responses")
    assert len(rows) == 3 and rows[0]["judge"] is None and rows[0]["prompt"] == "how? 1"


def test_problems_share_a_product(warehouse):
    rows = ask(warehouse, "select problem, dimension, coverage from label_quality")
    assert {row["problem"] for row in rows} == {"copy", "demo"}
    assert ask(warehouse, "select distinct problem from leaderboard") == [{"problem": "demo"}]


def test_old_products_keep_the_inputs_they_were_made_from(tmp_path):
    warehouse = Warehouse(tmp_path / "w.duckdb")
    warehouse.save_products([*dataset("1"), generations()[0]])
    warehouse.save_products(dataset("2"))  # new prompts; the generations still answer the old ones
    assert {row["prompt"] for row in ask(warehouse, "from sample_responses")} == {"how? 1"}
    keys = ask(warehouse, "select prompts_key, is_current from keys_history where stage = 'pairs'")
    assert sorted(keys, key=str) == [
        {"prompts_key": "prompts1", "is_current": False},
        {"prompts_key": "prompts2", "is_current": True},
    ]


def fenced_queries() -> list[str]:
    pages = "".join(page.read_text("utf-8") for page in (PAGE, PAGE.with_name("rewards.md")))
    return re.findall(r"^```sql\n(.*?)^```", pages, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("sql", fenced_queries(), ids=range(len(fenced_queries())))
def test_every_query_of_the_pages_answers(warehouse, sql):
    answer = run_query(warehouse, sql)
    assert answer.num_rows > 0
    assert json.loads(to_json(answer)) and to_csv(answer)


def test_page_has_its_questions():
    assert len(fenced_queries()) >= 2 + 15  # two of them ask the database about itself


def test_every_table_view_and_column_explains_itself(warehouse):
    views = ask(warehouse, "select view_name, comment from duckdb_views() where not internal")
    assert len(views) >= 25
    assert [view["view_name"] for view in views if not view["comment"]] == []
    silent = ask(
        warehouse,
        "select table_name || '.' || column_name as name from duckdb_columns() "
        "where comment is null and not internal and not ends_with(table_name, '_history')",
    )
    assert [row["name"] for row in silent] == []


def test_every_view_is_on_the_page(warehouse):
    sql = (
        "select view_name from duckdb_views() where not internal and not view_name like '%_history'"
    )
    page = PAGE.read_text("utf-8")
    assert [row for row in ask(warehouse, sql) if f"`{row['view_name']}`" not in page] == []


def test_comparisons_say_who_beats_whom(warehouse):
    rows = ask(warehouse, "select method, other, verdict from comparisons where judge = 'gold'")
    assert [tuple(row.values()) for row in rows] == [
        ("panacea", "panacea_dpo", "better"),
        ("panacea", "reference", "no difference shown"),
        ("panacea_dpo", "panacea", "worse"),
    ]


def test_the_ruler_says_what_it_rests_on(warehouse):
    assert ask(warehouse, "from ruler") == [
        {
            "problem": "demo",
            "judge": "proxy",
            "effective_samples": 3.5,
            "points_refused": 1,
            "samples_needed": 92,
            "samples": 64,
        }
    ]


def test_gold_and_proxy_lie_side_by_side(warehouse):
    rows = ask(warehouse, "from gold_and_proxy where method = 'panacea'")
    assert [(row["point"], row["gold"], row["proxy"], row["kl"]) for row in rows] == [
        (0, 1.0, 1.0, 0.3),
        (1, 0.5, 0.5, 0.3),
        (2, 1.0, 1.0, 0.3),
    ]


def test_the_leaderboard_tells_what_an_answer_costs(warehouse):
    sql = "select method, forwards_per_token, adapters, steerability, igd_plus from leaderboard"
    assert ask(warehouse, sql)[0] == {
        "method": "panacea",
        "forwards_per_token": 1,
        "adapters": 1,
        "steerability": 0.5,
        "igd_plus": 0.5,
    }


REFUSED = {
    "insert": "insert into facts.prompts values ('k', 'p', 'train', 'x')",
    "delete": "delete from facts.prompts",
    "drop": "drop table facts.prompts",
    "drop view": "drop view leaderboard",
    "create": "create table mine as select 1",
    "second statement": "select 1; drop table facts.prompts",
    "copy to": "copy (select 1) to '{folder}/stolen.csv'",
    "copy from": "copy facts.prompts from '{folder}/secret.csv'",
    "export": "export database '{folder}/export'",
    "attach": "attach '{folder}/other.duckdb'",
    "attach the writer's": "attach '{database}' as writable",
    "read_csv": "from read_csv('{folder}/secret.csv')",
    "read_text": "from read_text('{folder}/secret.csv')",
    "file as table": "from '{folder}/secret.csv'",
    "glob": "from glob('{folder}/*')",
    "unlock": "set enable_external_access = true",
    "reset": "reset lock_configuration",
    "install": "install httpfs",
    "parquet metadata": "from parquet_metadata('{folder}/secret.csv')",
}


@pytest.mark.parametrize("sql", REFUSED.values(), ids=REFUSED.keys())
def test_sql_of_people_only_reads_the_warehouse(warehouse, sql, tmp_path):
    (tmp_path / "secret.csv").write_text("a\n1\n")
    before = warehouse.snapshot.read_bytes()
    with pytest.raises(InputError, match="refused"):
        run_query(warehouse, sql.format(folder=tmp_path, database=warehouse.path))
    assert [path.name for path in tmp_path.iterdir()] == ["secret.csv"]
    assert warehouse.snapshot.read_bytes() == before


def test_bad_sql_is_an_input_error_with_the_reason(warehouse):
    with pytest.raises(InputError, match="leaderbord"):
        run_query(warehouse, "from leaderbord")
    with pytest.raises(InputError, match="returns nothing"):
        run_query(warehouse, " -- nothing")


def test_nothing_published_yet_says_what_to_run(tmp_path):
    with pytest.raises(MissingUpstreamError, match="panacea materialize demo"):
        run_query(Warehouse(tmp_path / "none.duckdb"), "from leaderboard")
    assert not list(tmp_path.iterdir())


def test_formats_hold_every_type(warehouse):
    answer = run_query(
        warehouse,
        """
        select map {'a': 0.5, 'b': 'nan'::double} as m, [1, null] as l,
               timestamp '2026-01-02' as t, 1.50::decimal(9, 2) as d, 2::hugeint as h, null as n,
               'λ,"x"' as s, 1 as s, 'inf'::double as f, interval 3 day as i, '\\xff'::blob as b,
               true as o, {'u': uuid()} as u
        """,
    )
    (row,) = json.loads(to_json(answer))
    assert row["m"] == {"a": 0.5, "b": None} and row["l"] == [1, None]
    assert row["t"] == "2026-01-02T00:00:00" and row["d"] == 1.5 and row["h"] == 2
    assert row["n"] is None and row["s"] == 'λ,"x"' and row["s_2"] == 1 and row["f"] is None
    assert row["b"] == "/w==" and row["o"] is True and len(row["u"]["u"]) == 36
    header, cells = csv.reader(io.StringIO(to_csv(answer)))
    line = dict(zip(header, cells, strict=True))
    assert line["m"] == '{"a": 0.5, "b": null}' and line["n"] == "" and line["s"] == 'λ,"x"'


def test_no_rows_are_an_empty_list_and_a_header(warehouse):
    answer = run_query(warehouse, "select method from leaderboard where false")
    assert (to_json(answer), to_csv(answer)) == ("[]", "method\n")
