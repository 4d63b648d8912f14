"""`panacea label`: everything up to the labels, or what asking for them would take."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from panacea_lib.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

    from orchestration.upstream import Upstream
    from panacea_lib.labelling.judge import Estimate

_STAGES = ["prompts", "base_model", "responses", "pairs", "annotations", "preference_labels"]


@dataclass(frozen=True)
class Planned:
    """A part of `annotations`: whether it is made already, and what a judge would take."""

    part: str
    made: bool
    estimate: "Estimate | None"


def label(
    problem: Annotated[str, typer.Argument(help="The problem's name (see `panacea problems`).")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what judges would be asked, and its price.")
    ] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="Instead of the problem's own.")] = None,
) -> None:
    """Label the pairs of a problem by all sources that it names; docs/labelling.md has them."""
    if not dry_run:
        from orchestration.running import materialize_selected

        materialize_selected(problem, ",".join(_STAGES), seed, None, force=False)
        return
    from orchestration.printing import print_planned_labels
    from orchestration.upstream import Upstream

    upstream = Upstream("label --dry-run", Workspace.current(), problem, seed)
    print_planned_labels(planned_labels(upstream))


def planned_labels(upstream: "Upstream") -> list[Planned]:
    """Every source of every dimension, in their order; nothing is asked.

    MissingUpstreamError where the problem has no pairs yet.
    """
    upstream.made("pairs")
    with tempfile.TemporaryDirectory() as folder:
        return [_planned(upstream, part, Path(folder)) for part in upstream.plan.label_parts]


def _planned(upstream: "Upstream", part: str, folder: Path) -> Planned:
    from orchestration.inputs import pair_texts
    from orchestration.judging import judge_job, write_pairs_for
    from panacea_lib.labelling.judge import estimate
    from panacea_lib.problem_labelling import JudgeLabels

    made = upstream.is_made("annotations", part)
    if made or not isinstance(upstream.plan.label_parts[part][1], JudgeLabels):
        return Planned(part, made, None)
    earlier = [_said(upstream, other) for other in upstream.plan.more_trusted(part)]
    known = [table for table in earlier if table is not None]
    pairs = write_pairs_for(upstream.plan, part, pair_texts(upstream), known, folder)
    job = judge_job(upstream.plan, part, upstream.problem_file, pairs, upstream.workspace)
    return Planned(part, made, estimate(job))


def _said(upstream: "Upstream", part: str) -> "pa.Table | None":
    """What a more trusted source has said or would say; None for a model or a judge that has not
    been asked: the pairs count as open."""
    from orchestration.defs.preferences.labels import annotate_at_once
    from panacea_lib.problem_labelling import JudgeLabels, ModelLabels

    if upstream.is_made("annotations", part):
        return upstream.rows("annotations", "annotations", part)
    dimension, source = upstream.plan.label_parts[part]
    if isinstance(source, JudgeLabels | ModelLabels):
        return None
    return annotate_at_once(upstream, dimension, source)
