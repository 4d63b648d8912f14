"""The champion of a problem: a policy that stays, whatever is trained, until it is replaced.

Its state is an append-only log, facts.champion_events: the champion is the policy of the last event
that is not a refusal. An event is added in one transaction that first looks whether the champion is
still the one that was decided against, so that a switch is atomic and no two decisions cross.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from panacea_lib.errors import InputError, MissingUpstreamError
from panacea_lib.problem_types import Quantization
from panacea_lib.warehouse import Warehouse

ALIAS = "champion:"
"""Before a problem's name: its champion, for `load_policy` and `panacea ask`."""

Action = Literal["promoted", "refused", "rolled_back"]
# A snapshot that was published before there were champions has no such table.
_TABLE = (
    "select 1 from duckdb_tables() where schema_name = 'facts' and table_name = 'champion_events'"
)
_EVENTS = "select * from facts.champion_events where problem = ? order by decided_at"
_CHAMPION = """
select arg_max(policy_key, decided_at) filter (action <> 'refused'), max(decided_at)
from facts.champion_events where problem = ?
"""
_DECISION = ("decision_key", "metric", "judge", "difference", "low", "high", "decided_at")
# Two runs at once decide the same: null where no run has since.
_DECIDED = """
select max(decided_at) from facts.champion_events
where problem = $problem and decision_key = $decision_key
    and incumbent_key is not distinct from $incumbent_key
    and decided_at > coalesce($known::timestamp, '-infinity')
"""
# The clock may be set back; the order of events may not.
_INSERT = """
insert into facts.champion_events by name
select {columns},
    greatest($now, coalesce($last::timestamp + interval 1 microsecond, $now)) as decided_at
"""


class ChampionChangedError(RuntimeError):
    """Another champion was made while this one was decided on; nothing was changed."""


@dataclass(frozen=True)
class ChampionEvent:
    """One decision on a policy; the columns of facts.champion_events, whose comments explain them.

    `decided_at` is given when it is recorded.
    """

    problem: str
    action: Action
    policy_key: str
    front_key: str | None
    base_key: str
    quantization: Quantization
    dimensions: list[str]
    incumbent_key: str | None
    reason: str
    decided_by: str
    decision_key: str | None = None
    metric: str | None = None
    judge: str | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    decided_at: datetime | None = None


def champion_events(warehouse: Warehouse, problem: str) -> list[ChampionEvent]:
    """All decisions on a problem's champion, oldest first; [] where there are none."""
    if not warehouse.snapshot.exists() or not warehouse.read(_TABLE).num_rows:
        return []
    return [ChampionEvent(**row) for row in warehouse.read(_EVENTS, [problem]).to_pylist()]


def champion_in(events: Sequence[ChampionEvent]) -> ChampionEvent | None:
    """The event that made today's champion; None where there is none."""
    return next((event for event in reversed(events) if event.action != "refused"), None)


def champion_of(warehouse: Warehouse, problem: str) -> ChampionEvent:
    """The event that made today's champion; MissingUpstreamError where there is none."""
    found = champion_in(champion_events(warehouse, problem))
    if found is None:
        raise MissingUpstreamError(
            f"{problem} has no champion yet: run `panacea materialize {problem}`, whose asset "
            f"champion promotes the first policy better than the base model, or `panacea champion "
            f"promote {problem}`"
        )
    return found


def reigning(events: Sequence[ChampionEvent]) -> list[ChampionEvent]:
    """The champions that rollbacks would go through, today's last: a promotion adds one, a rollback
    takes one away."""
    found: list[ChampionEvent] = []
    for event in events:
        if event.action == "promoted":
            found.append(event)
        elif event.action == "rolled_back":
            found.pop()
    return found


def was_rolled_back(events: Sequence[ChampionEvent], policy_key: str) -> ChampionEvent | None:
    """The rollback that ended this policy's last reign, if one did and it has not reigned since."""
    for event in reversed(events):
        if event.action == "rolled_back" and event.incumbent_key == policy_key:
            return event
        if event.action != "refused" and event.policy_key == policy_key:
            return None
    return None


def record(warehouse: Warehouse, event: ChampionEvent, known: Sequence[ChampionEvent] = ()) -> None:
    """Add an event to the log; readers see it, and the champion it makes, with the next snapshot.

    `known`: the problem's events when a run decided. Where another run has decided the same since,
    nothing is added. ChampionChangedError where the champion is no longer `incumbent_key`; then
    nothing is written.
    """
    values = asdict(event)
    del values["decided_at"]
    columns = ", ".join(f"${name} as {name}" for name in values)
    now = datetime.now(UTC).replace(tzinfo=None)  # the tables hold UTC without saying so
    seen = {"known": known[-1].decided_at if known else None}
    seen |= {name: values[name] for name in ("problem", "decision_key", "incumbent_key")}
    with warehouse.writer(f"champion of {event.problem}") as connection:
        if connection.execute(_DECIDED, seen).fetchone() != (None,):
            return
        found = connection.execute(_CHAMPION, [event.problem]).fetchone()
        champion, last = found or (None, None)
        if champion != event.incumbent_key:
            raise ChampionChangedError(
                f"the champion of {event.problem} is {champion or 'nobody'} now, not "
                f"{event.incumbent_key or 'nobody'}, whom this decision was about: nothing was "
                "changed; run the same command again to decide on today's"
            )
        sql = _INSERT.format(columns=columns)
        connection.execute(sql, {**values, "now": now, "last": last})


def promoted_by_hand(
    events: Sequence[ChampionEvent], candidate: ChampionEvent, reason: str, decided_by: str
) -> ChampionEvent:
    """The event that makes a candidate champion whatever the gate says.

    InputError where it is champion already.
    """
    champion = champion_in(events)
    if champion is not None and champion.policy_key == candidate.policy_key:
        raise InputError(
            f"{candidate.policy_key} is the champion of {candidate.problem} already; name another "
            "policy with --policy"
        )
    return _by_hand(candidate, "promoted", champion, reason, decided_by)


def rolled_back(
    problem: str, events: Sequence[ChampionEvent], reason: str, decided_by: str
) -> ChampionEvent:
    """The event that brings back the champion before today's.

    MissingUpstreamError where there is no champion, or none before it.
    """
    reigns = reigning(events)
    if len(reigns) < 2:
        who = f"{reigns[0].policy_key} is its first" if reigns else "it has had none"
        raise MissingUpstreamError(
            f"{problem} has no champion to go back to: {who}; `panacea champion promote {problem} "
            "--policy KEY` takes any policy that was evaluated"
        )
    return _by_hand(reigns[-2], "rolled_back", reigns[-1], reason, decided_by)


def _by_hand(
    candidate: ChampionEvent,
    action: Action,
    incumbent: ChampionEvent | None,
    reason: str,
    decided_by: str,
) -> ChampionEvent:
    """Of the candidate only what tells how to load it; nothing was compared."""
    return replace(
        candidate,
        action=action,
        incumbent_key=incumbent.policy_key if incumbent else None,
        reason=reason,
        decided_by=decided_by,
        **dict.fromkeys(
            ("decision_key", "metric", "judge", "difference", "low", "high", "decided_at")
        ),
    )
