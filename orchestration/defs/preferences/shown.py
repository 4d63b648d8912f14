"""What the asset pages show of labels: coverage, conflicts, agreement, position bias, cost."""

import dagster as dg

from orchestration.shown import picture, small_table
from orchestration.stage import StageRun

_QUALITY = """
select dimension, pairs, labels, coverage, ties, failed, mean_label
from label_quality_history where problem = ? and key = ? order by dimension
"""
_CONFLICTS = """
select dimension_a, dimension_b, pairs, disagreement
from preference_conflicts_history where problem = ? and key = ? order by disagreement desc
"""
_USED = """
select dimension, case when status = 'failed' then 'failed' else source end as source,
    count(*) / (select count(*) from facts.pairs where key = $pairs) as share
from facts.preference_labels where key = $labels group by all order by all
"""
_AGREEMENT = """
select dimension, annotator, alpha, with_majority, pairs
from label_agreement_history where problem = ? and key = ? order by dimension, annotator
"""
_SOURCES = """
select dimension, source, annotator, pairs, coverage, failed, commonest_failure, ties, mean_label
from label_sources_history where problem = ? and list_contains(?, key)
order by dimension, source, annotator
"""
_BIAS = """
select dimension, annotator, pairs, first_preferred, consistent
from position_bias_history where problem = ? and list_contains(?, key)
order by dimension, annotator
"""
_COSTS = """
select dimension, annotator, requests, cached, failed, input_tokens, output_tokens, cost
from label_costs_history where problem = ? and list_contains(?, key) order by dimension, annotator
"""


def annotations_metadata(run: StageRun) -> dict[str, dg.MetadataValue]:
    """Who said how much, and of judges their position bias and what they cost."""
    from panacea_lib.report import position_bias_picture

    mine = [run.problem.name, list(run.plan.keys("annotations").values())]
    shown: dict[str, dg.MetadataValue] = {
        "sources": small_table(run.warehouse.read(_SOURCES, mine))
    }
    bias = run.warehouse.read(_BIAS, mine)
    if bias.num_rows:
        drawn = position_bias_picture(bias.to_pylist())
        shown["position bias"] = picture(drawn, "how often the response shown first wins")
    costs = run.warehouse.read(_COSTS, mine)
    if costs.num_rows:
        shown["cost"] = small_table(costs)
    return shown


def labels_metadata(run: StageRun, key: str) -> dict[str, dg.MetadataValue]:
    """Coverage and conflicts as a picture, and the figures behind it."""
    from panacea_lib.report import labels_picture

    mine = [run.problem.name, key]
    used = run.warehouse.read(_USED, {"labels": key, "pairs": run.made("pairs")})
    conflicts = run.warehouse.read(_CONFLICTS, mine)
    names = run.problem.dimension_names
    drawn = labels_picture(used.to_pylist(), conflicts.to_pylist(), names)
    shown: dict[str, dg.MetadataValue] = {
        "coverage and conflicts": picture(drawn, "coverage of each dimension, and conflicts"),
        "quality": small_table(run.warehouse.read(_QUALITY, mine)),
        "conflicts": small_table(conflicts),
    }
    agreement = run.warehouse.read(_AGREEMENT, mine)
    if agreement.num_rows:
        shown["agreement"] = small_table(agreement)
    return shown
