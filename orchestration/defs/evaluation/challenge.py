"""Today's policy against the champion: what the champion answers today, and the gate's decision."""

import json
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING

import pyarrow as pa

from orchestration.defs.evaluation.answers import answers_of, held_out_prompts
from orchestration.defs.evaluation.fronts import judges, means_of, reference_rewards, ruler_of
from orchestration.stage import Outcome, StageRun
from panacea_lib.artifact_store import MANIFEST
from panacea_lib.champions import (
    ChampionEvent,
    champion_events,
    champion_in,
    record,
    was_rolled_back,
)

if TYPE_CHECKING:
    from panacea_lib.evaluation import PromptMeans
    from panacea_lib.evaluation.bootstrap import Figure

# What they are called in one comparison; without a champion the rival is the base model.
_CHALLENGER, _CHAMPION, _BASE = "panacea", "champion", "reference"
_ANSWERS = "answers"  # the part of stage champion: what the champion answers today
_RECORD = "product.json"  # in an artifact: when it was made, which does not make another model


@dataclass(frozen=True)
class Decided:
    """What the gate came to.

    outcomes: all that was made or found. is_new: whether `event` was recorded now. comparison: a
    row per figure, with the difference and its interval; None where nothing was compared now.
    """

    outcomes: list[Outcome]
    event: ChampionEvent
    is_new: bool
    comparison: pa.Table | None = None

    @property
    def told(self) -> str:
        """The decision in a line."""
        what = f"{self.event.action} {self.event.policy_key[:8]}: {self.event.reason}"
        return what if self.is_new else f"nothing to decide  (before: {what})"


@dataclass(frozen=True)
class _Measured:
    """The challenger's levels by dimension, and the differences from its rival by figure."""

    judge: str
    level: "dict[str, Figure]"
    differences: "dict[str, Figure]"

    def table(self) -> pa.Table:
        found = [{"figure": name, **vars(d)} for name, d in self.differences.items()]
        return pa.Table.from_pylist(found)


def challenge(run: StageRun) -> Decided:
    """Let today's policy challenge the champion, and record what comes of it.

    An unchanged challenge is not repeated: where today's policy is the champion, or was decided on
    against the same champion with the same answers and settings, nothing is recorded anew, also
    under `force`.
    MissingUpstreamError where today's policy was not evaluated; ChampionChangedError where somebody
    made another champion meanwhile.
    """
    started, events = perf_counter(), champion_events(run.warehouse, run.problem.name)
    champion, key = champion_in(events), run.plan.key("champion")
    today = _today(run, champion, key)
    if champion is not None and champion.policy_key == today.policy_key:
        return _told(run, Decided([_unchanged(key, "today's policy is it")], champion, False))
    if before := decision_before(events, today):
        return _told(run, Decided([_unchanged(key, "decided before")], before, False))
    run.reporter.begin("")
    outcomes: list[Outcome] = []
    comparison = None
    reason = incomparable(run, today, champion, events)
    if reason is None:
        outcomes, today, comparison = _compare(run, today, champion)
    else:
        today = replace(today, reason=reason)
    record(run.warehouse, today, events)
    outcomes.append(Outcome("", key, "built", perf_counter() - started, "a policy not decided on"))
    return _told(run, Decided(outcomes, today, True, comparison))


def _unchanged(key: str, reason: str) -> Outcome:
    return Outcome("", key, "reused", 0.0, reason)


def decision_before(events: list[ChampionEvent], today: ChampionEvent) -> ChampionEvent | None:
    """The last decision on the same challenge; a promotion that was rolled back since is none."""
    ended = was_rolled_back(events, today.policy_key)
    for event in reversed(events):
        same = (event.decision_key, event.incumbent_key) == (
            today.decision_key,
            today.incumbent_key,
        )
        if same and not (ended and event.action == "promoted"):
            return event
    return None


def _told(run: StageRun, decided: Decided) -> Decided:
    run.reporter.end("", decided.told)
    return decided


def _today(run: StageRun, champion: ChampionEvent | None, decision_key: str) -> ChampionEvent:
    """Today's policy as a challenger: refused, until it has shown what it must."""
    run.artifact("panacea_policy", "panacea")
    run.made("generations", "panacea")
    return ChampionEvent(
        problem=run.problem.name,
        action="refused",
        policy_key=run.plan.key("panacea_policy", "panacea"),
        front_key=run.made("pareto_front"),
        base_key=run.plan.key("base_model"),
        quantization=run.problem.base_model.quantization,
        dimensions=run.problem.dimension_names,
        incumbent_key=champion.policy_key if champion else None,
        reason="",
        decided_by=f"run {run.context.run.run_id}",
        decision_key=decision_key,
    )


def incomparable(
    run: StageRun,
    today: ChampionEvent,
    champion: ChampionEvent | None,
    events: list[ChampionEvent],
) -> str | None:
    """Why no figure may decide between the two; None where figures may."""
    if champion is None:
        return None
    remedy = (
        f"; if it is meant to replace the champion, `panacea champion promote {today.problem} "
        f"--policy {today.policy_key[:8]}`"
    )
    if ended := was_rolled_back(events, today.policy_key):
        return f"it was rolled back on {ended.decided_at:%Y-%m-%d} ({ended.reason}){remedy}"
    cannot = "it cannot be compared with the champion, "
    if champion.dimensions != today.dimensions:
        return f"{cannot}whose dimensions were {', '.join(champion.dimensions)}{remedy}"
    if not run.store.is_complete(champion.policy_key):
        return f"{cannot}whose artifact {champion.policy_key} is gone{remedy}"
    if not _same_base(run, today, champion):
        return (
            f"{cannot}which is made of another base model ({champion.base_key[:8]}, "
            f"quantisation {champion.quantization}){remedy}"
        )
    return None


def _same_base(run: StageRun, today: ChampionEvent, champion: ChampionEvent) -> bool:
    """Whether both adapters fit one model, loaded alike. Another key may be the same files: of a
    pretrained model under another seed."""
    if champion.quantization != today.quantization:
        return False
    if champion.base_key == today.base_key:
        return True
    if not run.store.is_complete(champion.base_key):
        return False
    found = []
    for key in (champion.base_key, today.base_key):
        files = json.loads((run.store.fetch(key) / MANIFEST).read_text("utf-8"))["files"]
        found.append({name: file for name, file in files.items() if name != _RECORD})
    return found[0] == found[1]


def _compare(
    run: StageRun, today: ChampionEvent, champion: ChampionEvent | None
) -> tuple[list[Outcome], ChampionEvent, pa.Table]:
    """The decision by figures: what was made for it, the event, and all that was compared."""
    from panacea_lib.evaluation.gate import decide

    gate, outcomes = run.problem.champion, []
    if champion is not None:
        # Its own evaluation may be the same answers under the same key: then they are here already.
        answers = run.plan.answers_content(champion.policy_key)
        stored = run.store.fetch(champion.policy_key)
        made = run.make_rows(_ANSWERS, lambda: answers_of(run, "panacea", stored), answers)
        outcomes.append(made)
    measured = _measure(run, outcomes[0].key if outcomes else None)
    difference = measured.differences[gate.metric]
    rival = "the champion" if champion else "the base model"
    verdict = decide(gate.metric, difference, measured.level, gate.floors, rival)
    event = replace(
        today,
        action="promoted" if verdict.promoted else "refused",
        reason=verdict.reason,
        judge=measured.judge,
        metric=gate.metric,
        difference=difference.value,
        low=difference.low,
        high=difference.high,
    )
    return outcomes, event, measured.table()


def _measure(run: StageRun, champion_answers: str | None) -> _Measured:
    """Both policies by the best judge, under the same resamples of prompts as the front."""
    from panacea_lib.evaluation import evaluate_fronts, preference_grid
    from panacea_lib.evaluation.bootstrap import Figure, resamples
    from panacea_lib.evaluation.gate import levels

    problem, judge, asked = run.problem, judges(run)[0], held_out_prompts(run)
    names, grid = problem.dimension_names, preference_grid(len(problem.dimensions))

    def means(key: str, called: str) -> "PromptMeans":
        return means_of(run, key, called, judge, asked, grid)

    challenger = means(run.made("generations", "panacea"), _CHALLENGER)
    bootstrap, seed = problem.evaluation.bootstrap, run.plan.seed
    level = levels(challenger, names, resamples(len(asked), bootstrap, seed))
    if champion_answers is None:
        rival = means(run.made("generations", _BASE), _BASE)
    else:
        rival = means(champion_answers, _CHAMPION)
    drawn = reference_rewards(run, judge, asked)
    ruler = ruler_of(run, judge, asked, grid, drawn)
    how = (grid, names, problem.beta, ruler, judge, bootstrap, seed)
    rows = evaluate_fronts([challenger, rival], *how).front_comparisons.to_pylist()
    differences = {
        row["metric"]: Figure(row["difference"], row["low"], row["high"])
        for row in rows
        if row["method"] == _CHALLENGER
    }
    return _Measured(judge, level, differences)
