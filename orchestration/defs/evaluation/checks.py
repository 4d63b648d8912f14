"""Is every front whole, and do the policies still speak the language?"""

import dagster as dg

from orchestration.defs.dataset.checks import OUTSIDE_LIMIT
from orchestration.defs.evaluation.assets import champion, generations, pareto_front, report
from orchestration.defs.evaluation.fronts import judges
from orchestration.partitions import PROBLEMS
from orchestration.resources import RunSettings, WorkspaceResource
from orchestration.stage import StageRun
from orchestration.trust import refused_points, ruler_quality, unseen_points
from panacea_lib.champions import champion_events, champion_in

_POINTS = """
select method, judge, count(distinct point) as points
from facts.front_values where key = ? group by all
"""
_OUTSIDE = """
select value from facts.front_metrics
where key = ? and method = 'panacea' and metric = 'outside_mass' and judge = 'gold'
"""


@dg.asset_check(asset=generations, blocking=True, partitions_def=PROBLEMS)
def answers_are_scored(
    context: dg.AssetCheckExecutionContext, workspace: WorkspaceResource, settings: RunSettings
) -> dg.AssetCheckResult:
    """Every answer has a finite probability, and one reward per dimension and judge."""
    run = StageRun(context, "generations", workspace, settings)
    keys = list(run.plan.keys("generations").values())
    expected = len(run.problem.dimensions) * len(judges(run))
    found = run.warehouse.read(
        "select count(*) as answers, count(*) filter (not isfinite(logprob) "
        "or not isfinite(reference_logprob) or coalesce(scored, 0) <> ?) as bad "
        "from facts.generations left join (select key, generation_id, count(*) as scored "
        "from facts.generation_rewards where isfinite(reward) group by all) "
        "using (key, generation_id) where list_contains(?, key)",
        [expected, keys],
    ).to_pylist()[0]
    return dg.AssetCheckResult(
        passed=found["answers"] > 0 and found["bad"] == 0,
        metadata=found,
        description=f"{found['bad']} of {found['answers']} answers lack a finite probability or "
        "a reward",
    )


@dg.asset_check(asset=pareto_front, blocking=True, partitions_def=PROBLEMS)
def front_has_every_preference(
    context: dg.AssetCheckExecutionContext, workspace: WorkspaceResource, settings: RunSettings
) -> dg.AssetCheckResult:
    """Every method has a point for every preference vector of the grid, by every judge."""
    run = StageRun(context, "pareto_front", workspace, settings)
    from panacea_lib.evaluation.grid import preference_grid

    expected = len(preference_grid(len(run.problem.dimensions)))
    rows = run.warehouse.read(_POINTS, [run.made("pareto_front")]).to_pylist()
    points = {(row["method"], row["judge"]): row["points"] for row in rows}
    wanted = [(method, judge) for method in run.plan.methods for judge in judges(run)]
    short = [f"{m} by {j}" for m, j in wanted if points.get((m, j)) != expected]
    return dg.AssetCheckResult(
        passed=not short,
        metadata={"points": expected, "fronts": len(wanted)},
        description=f"points are missing: {', '.join(short)}"
        if short
        else f"{len(wanted)} fronts of {expected} points each",
    )


@dg.asset_check(asset=pareto_front, blocking=False, partitions_def=PROBLEMS)
def policy_stays_inside_the_grammar(
    context: dg.AssetCheckExecutionContext, workspace: WorkspaceResource, settings: RunSettings
) -> dg.AssetCheckResult:
    """In the embedded world at most 1 % of Panacea's answers lie outside the grammar; only a
    warning, as its reward pays for them already."""
    run = StageRun(context, "pareto_front", workspace, settings)
    rows = run.warehouse.read(_OUTSIDE, [run.made("pareto_front")])
    share = rows["value"][0].as_py() if rows.num_rows else 0.0
    return dg.AssetCheckResult(
        passed=share <= OUTSIDE_LIMIT,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"outside the grammar": share},
        description=f"{share:.2%} of the answers lie outside the grammar",
    )


@dg.asset_check(asset=pareto_front, blocking=False, partitions_def=PROBLEMS)
def optimum_is_known(
    context: dg.AssetCheckExecutionContext, workspace: WorkspaceResource, settings: RunSettings
) -> dg.AssetCheckResult:
    """Where the optimum is estimated, the reference samples are enough to show its front; only a
    warning, as its value is estimated anyway. The exact optimum of the embedded world passes."""
    run = StageRun(context, "pareto_front", workspace, settings)
    key, judge = run.made("pareto_front"), judges(run)[0]
    ruler = ruler_quality(run.warehouse, run.problem.name, key, judge)
    refused = refused_points(ruler) if ruler else None
    return dg.AssetCheckResult(
        passed=refused is None,
        severity=dg.AssetCheckSeverity.WARN,
        metadata=ruler or {"estimated": False},
        description=refused or "the optimum is known at every λ",
    )


@dg.asset_check(asset=pareto_front, blocking=False, partitions_def=PROBLEMS)
def hypervolume_sees_every_point(
    context: dg.AssetCheckExecutionContext, workspace: WorkspaceResource, settings: RunSettings
) -> dg.AssetCheckResult:
    """No point lies below the hypervolume's reference point, which would dominate it and count it
    as nothing; only a warning."""
    run = StageRun(context, "pareto_front", workspace, settings)
    unseen = unseen_points(run.warehouse, run.made("pareto_front"), judges(run)[0])
    return dg.AssetCheckResult(
        passed=unseen is None,
        severity=dg.AssetCheckSeverity.WARN,
        description=unseen or "every point lies above the reference point",
    )


@dg.asset_check(asset=report, blocking=True, partitions_def=PROBLEMS)
def report_is_published(
    context: dg.AssetCheckExecutionContext, workspace: WorkspaceResource, settings: RunSettings
) -> dg.AssetCheckResult:
    """The page lies where people look for it, and is the one that was stored."""
    run = StageRun(context, "report", workspace, settings)
    page = run.workspace.reports / f"{run.problem.name}.html"
    stored = (run.artifact("report") / "report.html").read_bytes()
    return dg.AssetCheckResult(
        passed=page.exists() and page.read_bytes() == stored,
        metadata={"page": dg.MetadataValue.path(str(page)), "bytes": len(stored)},
        description=f"{page} is the stored report",
    )


@dg.asset_check(asset=champion, blocking=False, partitions_def=PROBLEMS)
def champion_is_kept(
    context: dg.AssetCheckExecutionContext, workspace: WorkspaceResource, settings: RunSettings
) -> dg.AssetCheckResult:
    """There is a champion, and its adapter and base model are in the store; only a warning, as no
    policy may have been better than the base model yet."""
    run = StageRun(context, "champion", workspace, settings)
    found = champion_in(champion_events(run.warehouse, run.problem.name))
    keys = {"policy": found.policy_key, "base model": found.base_key} if found else {}
    gone = [f"{what} {key}" for what, key in keys.items() if not run.store.is_complete(key)]
    told = f"{', '.join(gone)} is not in the store" if gone else "there is none yet"
    if found and not gone:
        told = f"{found.policy_key} is champion, and is kept"
    return dg.AssetCheckResult(
        passed=found is not None and not gone,
        severity=dg.AssetCheckSeverity.WARN,
        metadata=keys,
        description=told,
    )
