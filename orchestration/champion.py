"""`panacea champion`: who it is and why, and to make it another by hand."""

import os
from typing import Annotated

import typer

from panacea_lib.artifact_store import ArtifactStore
from panacea_lib.champions import (
    ChampionEvent,
    champion_events,
    champion_of,
    promoted_by_hand,
    record,
    rolled_back,
)
from panacea_lib.errors import InputError, MissingUpstreamError
from panacea_lib.problem import Problem
from panacea_lib.problem_files import load_problem_named
from panacea_lib.stored_policy import newest_policy
from panacea_lib.warehouse import Warehouse
from panacea_lib.workspace import Workspace

app = typer.Typer(
    help="The champion of a problem: show it, promote another by hand, roll back.",
    no_args_is_help=True,
)
_ProblemName = Annotated[str, typer.Argument(help="A problem that has been evaluated.")]
_Reason = Annotated[str, typer.Option(help="Why, for the history.")]
_HISTORY = """
select decided_at, action, left(policy_key, 8) as policy, left(incumbent_key, 8) as champion,
    metric, difference, low, high, reason, decided_by
from champion_history where problem = ? order by decided_at
"""
_EVALUATED = """
select max(since) filter (stage = 'pareto_front') >= max(since) filter (stage = 'panacea_policy')
    as evaluated
from facts.adoptions where problem = ?
"""
_SHORTEST = 6  # digits of a key


@app.command()
def show(problem: _ProblemName) -> None:
    """Who is champion, since when and why, and every decision so far."""
    from orchestration.printing import print_table

    warehouse = _open(problem)[1]
    champion = champion_of(warehouse, problem)
    typer.echo(
        f"champion of {problem}: {champion.policy_key}\n"
        f"  {champion.action} {champion.decided_at:%Y-%m-%d %H:%M} UTC by {champion.decided_by}: "
        f"{champion.reason}\n"
        f'  load_policy("champion:{problem}"), panacea ask champion:{problem} "..."'
    )
    print_table(warehouse.read(_HISTORY, [problem]))


@app.command()
def promote(
    problem: _ProblemName,
    policy: Annotated[
        str | None,
        typer.Option(
            help="The key of a policy that was evaluated, or how it begins (champion_history has "
            "them); default: today's."
        ),
    ] = None,
    reason: _Reason = "by hand",
) -> None:
    """Make a policy champion whatever the gate said; the history says that a person did."""
    loaded, warehouse, store = _open(problem)
    events = champion_events(warehouse, problem)
    candidate = _candidate(warehouse, loaded, events, policy)
    _switch(warehouse, store, promoted_by_hand(events, candidate, reason, _who()))


@app.command()
def rollback(problem: _ProblemName, reason: _Reason = "by hand") -> None:
    """Bring back the champion before today's; again, the one before that."""
    _, warehouse, store = _open(problem)
    events = champion_events(warehouse, problem)
    _switch(warehouse, store, rolled_back(problem, events, reason, _who()))


def _open(problem: str) -> tuple[Problem, Warehouse, ArtifactStore]:
    """InputError for a name that is no problem's."""
    workspace = Workspace.current()
    loaded = load_problem_named(workspace, problem)
    return loaded, Warehouse(workspace.warehouse), ArtifactStore(workspace.artifacts)


def _candidate(
    warehouse: Warehouse, problem: Problem, events: list[ChampionEvent], policy: str | None
) -> ChampionEvent:
    """The policy that `--policy` names: today's, or one that was decided on before.

    InputError where it names none or several; MissingUpstreamError where today's was not evaluated.
    """
    today = _today(warehouse, problem)
    if policy is None:
        if today is None:
            raise MissingUpstreamError(
                f"today's policy of {problem.name} was not evaluated; run `panacea materialize "
                f"{problem.name}`, or name an earlier one with --policy"
            )
        return today
    known = {event.policy_key: event for event in events}
    if today is not None:
        known.setdefault(today.policy_key, today)
    found = [key for key in known if len(policy) >= _SHORTEST and key.startswith(policy)]
    if len(found) != 1:
        raise InputError(
            f"--policy: {policy!r} names {len(found)} of the policies that were evaluated "
            f"({', '.join(key[:8] for key in known) or 'there are none'}); give at least "
            f"{_SHORTEST} digits of one"
        )
    return known[found[0]]


def _today(warehouse: Warehouse, problem: Problem) -> ChampionEvent | None:
    """The policy that the problem shows today; None where it was not evaluated."""
    from orchestration.evaluated import current_front

    front_key = current_front(warehouse, problem.name)
    if front_key is None or not warehouse.read(_EVALUATED, [problem.name])["evaluated"][0].as_py():
        return None
    stored = newest_policy(warehouse, problem, "panacea")
    assert stored.policy_key is not None  # only the reference policy has none
    return ChampionEvent(
        problem=problem.name,
        action="promoted",
        policy_key=stored.policy_key,
        front_key=front_key,
        base_key=stored.base_key,
        quantization=stored.quantization,
        dimensions=stored.dimensions,
        incumbent_key=None,
        reason="",
        decided_by="",
    )


def _switch(warehouse: Warehouse, store: ArtifactStore, event: ChampionEvent) -> None:
    """MissingUpstreamError where its artifacts are gone, pruned or lost."""
    for key in (event.policy_key, event.base_key):
        if not store.is_complete(key):
            raise MissingUpstreamError(
                f"artifact {key} of policy {event.policy_key} is not in {store.url}: name another "
                f"with `panacea champion promote {event.problem} --policy KEY`, or run `panacea "
                f"materialize {event.problem}`"
            )
    record(warehouse, event)
    before = f", no longer {event.incumbent_key}" if event.incumbent_key else ""
    typer.echo(f"the champion of {event.problem} is {event.policy_key} now{before}")


def _who() -> str:
    return f"user {os.environ.get('USER') or os.getuid()}"
