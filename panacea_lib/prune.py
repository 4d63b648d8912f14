"""What may go: products that no problem shows any more, their artifacts, and abandoned work.

Kept are, whatever their age: what problems show today and all it was made from; the last champions
of every problem, with their base models and figures; and policies that problem files name. What
people and judges answered is never touched: it cannot be made again.
"""

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from panacea_lib.artifact_store import ArtifactStore
from panacea_lib.champions import champion_events, reigning
from panacea_lib.lease import LeaseHeldError, hold, lease_of
from panacea_lib.problem_files import find_problems, load_problem
from panacea_lib.warehouse import Warehouse
from panacea_lib.workspace import Workspace

_KEY = re.compile(r"[0-9a-f]{32}")
_PRODUCTS = """
with shown as (
    select key, coalesce(
        lead(since) over (partition by problem, stage, part order by since), since
    ) as until
    from facts.adoptions
),
counted as (
    select key, list_sum(map_values(row_counts::map(varchar, bigint)))::bigint as "rows"
    from facts.products
)
select
    p.key, p.problem, p.stage, p.part,
    coalesce(max(s.until), any_value(p.created_at)) as superseded_at,
    coalesce(any_value(r."rows"), 0) as "rows",
    any_value(o.content)::varchar as content,
    p.key in (select key from facts.current) as is_shown
from facts.products p
join counted r using (key)
left join facts.origins o using (key)
left join shown s using (key)
group by p.key, p.problem, p.stage, p.part
order by superseded_at, p.stage, p.part
"""


@dataclass(frozen=True)
class Retention:
    """What is kept beside what problems show.

    Attributes:
        days: Superseded products and abandoned work stay so long.
        champions: So many reigns of each problem stay, today's included: a rollback needs them.
    """

    days: int = 30
    champions: int = 3


@dataclass(frozen=True)
class Superseded:
    """A product that nothing needs any more; `artifact_bytes` is 0 where it is rows only."""

    key: str
    problem: str
    stage: str
    part: str
    superseded_at: datetime
    rows: int
    artifact_bytes: int


@dataclass(frozen=True)
class Prunable:
    """What a policy lets go; `unknown` artifacts are of no product here and stay."""

    products: list[Superseded]
    unfinished: list[str]
    unknown: list[str]


def find_prunable(workspace: Workspace, retention: Retention, now: datetime) -> Prunable:
    """Look, and change nothing; `now` is in UTC.

    InputError where a problem file cannot be read: it might name a policy that must stay.
    """
    cutoff = now.astimezone(UTC).replace(tzinfo=None) - timedelta(days=retention.days)
    warehouse, store = Warehouse(workspace.warehouse), ArtifactStore(workspace.artifacts)
    rows = []
    if workspace.warehouse.exists():
        warehouse.is_complete("0")  # brings an older version's tables up to date
        rows = warehouse.read(_PRODUCTS).to_pylist()
    old = {row["key"] for row in rows if not row["is_shown"] and row["superseded_at"] < cutoff}
    kept = {row["key"] for row in rows} - old | pinned_keys(workspace)
    for problem in {row["problem"] for row in rows}:
        for reign in reigning(champion_events(warehouse, problem))[-retention.champions :]:
            kept |= {reign.policy_key, reign.base_key, reign.front_key or ""}
    contents = {row["key"]: row["content"] or "" for row in rows}
    kept = _with_inputs(kept, contents)
    stored = store.stored_keys()
    products = [
        Superseded(
            *(row[name] for name in ("key", "problem", "stage", "part", "superseded_at", "rows")),
            artifact_bytes=store.size(row["key"]) if row["key"] in stored else 0,
        )
        for row in rows
        if row["key"] in old - kept
    ]
    unfinished = [
        key
        for key, touched in store.unfinished().items()
        if datetime.fromtimestamp(touched, UTC).replace(tzinfo=None) < cutoff
    ]
    return Prunable(products, unfinished, [key for key in stored if key not in contents])


def prune(workspace: Workspace, found: Prunable) -> None:
    """Remove it. Artifacts first: what dies in between is found again, and made again if wanted."""
    store = ArtifactStore(workspace.artifacts)
    for product in found.products:
        store.delete(product.key)
    for key in found.unfinished:
        # Whoever went on with it meanwhile holds its lease, and keeps it.
        with suppress(LeaseHeldError), hold(lease_of(store.working_dir(key)), "panacea prune", 0):
            store.discard_work(key)
    store.sweep()
    if found.products:
        keys = [product.key for product in found.products]
        Warehouse(workspace.warehouse).delete_products(keys, "panacea prune")


def pinned_keys(workspace: Workspace) -> set[str]:
    """Policies that problem files name to answer for them."""
    problems = [load_problem(file, workspace) for file in find_problems(workspace).values()]
    return {p.pairs.policy for p in problems if p.pairs is not None and p.pairs.policy}


def _with_inputs(keys: Iterable[str], contents: dict[str, str]) -> set[str]:
    """The keys and all that they follow from, as far as that is on record."""
    found: set[str] = set()
    left = set(keys)
    while left:
        key = left.pop()
        found.add(key)
        left |= set(_KEY.findall(contents.get(key, ""))) - found
    return found
