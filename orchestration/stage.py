"""The one mechanism of all assets: find a product under its content key, or make and keep it.

A product is rows in the warehouse and, for models, an artifact in the store. The artifact is kept
first and the rows last, in one transaction, so a run that dies in between leaves rows to be
restored from the artifact, never rows without one.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import dagster as dg
import pyarrow as pa

from orchestration.environment import disable_telemetry, go_offline, keep_freed_memory
from orchestration.following import followed_settings
from orchestration.progress import Context, Reporter
from orchestration.resources import RunSettings, WorkspaceResource
from orchestration.upstream import Upstream
from panacea_lib.lease import HANDOVER, hold, lease_of
from panacea_lib.plan import key_of
from panacea_lib.reasons import why
from panacea_lib.warehouse import Product

Action = Literal["built", "reused", "restored"]
_RECORD = "product.json"  # beside a model: its rows, should the warehouse lose them
_SHOWN = """
select current.key, origins.content
from facts.current left join facts.origins using (key)
where problem = ? and stage = ? and part = ?
"""
_FIRST = "not made before"


@dataclass(frozen=True)
class Made:
    """What a build hands over: rows per table of `facts`, and anything JSON holds."""

    tables: dict[str, pa.Table]
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """How a part of a stage came to be here."""

    part: str
    key: str
    action: Action
    seconds: float
    reason: str


class StageRun(Upstream):
    """One stage of one problem in one Dagster run: what it may read, and what it makes."""

    def __init__(
        self, context: Context, stage: str, workspace: WorkspaceResource, settings: RunSettings
    ) -> None:
        """Read the problem and plan its keys.

        InputError: no such problem any more, a bad file, or data that is missing.
        """
        disable_telemetry()
        keep_freed_memory()
        own = (settings.seed, settings.max_steps)
        seed, max_steps = followed_settings(context.run, context.instance, stage) or own
        super().__init__(stage, workspace.workspace, context.partition_key, seed, max_steps)
        go_offline(self.problem)  # before the first import of a model library
        self.context = context
        self.stage = stage
        self.reporter = Reporter(context, stage)
        self._force = settings.force
        self._emptied: set[str] = set()  # keys whose earlier work is gone: all is made anew

    # ---- making

    def make_rows(
        self, part: str, build: Callable[[], Made], content: dict[str, Any] | None = None
    ) -> Outcome:
        """Find the rows of a part, or build and save them; `content` is what they follow from, if
        not what the plan says."""
        content = content or self.plan.content(self.stage, part)
        key = key_of(content)
        if self.warehouse.is_complete(key) and not self._force:
            return self._reuse(part, content)
        started = self._begin(part)
        made = build()
        seconds = perf_counter() - started
        outcome = self._save(part, content, made, seconds, "built")
        self.store.discard_work(key)
        return outcome

    def make_artifact(self, part: str, build: Callable[[Path, Path], Made]) -> Outcome:
        """Find the artifact and the rows of a part, or build and keep them.

        `build(folder, checkpoints)` fills `folder`, which becomes the artifact; `checkpoints` is
        there again, as it was left, when an interrupted build is tried anew.
        """
        content = self.plan.content(self.stage, part)
        key = key_of(content)
        has_rows = self.warehouse.is_complete(key)
        if self.store.is_complete(key) and not self._force:
            return self._reuse(part, content) if has_rows else self._restore(part, content)
        started = self._begin(part)
        checkpoints = self.store.working_dir(key)
        if self._force:
            self._empty_once(checkpoints)
        with self.store.writer(key, replace=self._force) as folder:
            made = build(folder, checkpoints)
            seconds = perf_counter() - started
            _write_record(folder, made, seconds)
        return self._save(part, content, made, seconds, "built")

    def _empty_once(self, checkpoints: Path) -> None:
        """Anew means anew: not from where an earlier run stopped. A retry of this run goes on."""
        emptied = checkpoints / f"emptied-{self.context.run.run_id}"
        if not emptied.exists():
            with hold(lease_of(checkpoints), "a run that makes it anew", HANDOVER):
                shutil.rmtree(checkpoints)
                checkpoints.mkdir()
                emptied.touch()

    def working_dir(self, part: str) -> Path:
        """A folder in which the build of a part's rows may leave what a later attempt goes on from;
        gone once the rows are saved, and empty where all is to be made anew."""
        key = self.plan.key(self.stage, part)
        if self._force and key not in self._emptied:
            self.store.discard_work(key)
            self._emptied.add(key)
        return self.store.working_dir(key)

    def retire_other_parts(self) -> None:
        """Stop showing parts that the problem no longer names."""
        self.warehouse.retire_parts(self.problem.name, self.stage, self.plan.parts(self.stage))

    def _begin(self, part: str) -> float:
        self.reporter.begin(part)
        return perf_counter()

    def _reuse(self, part: str, content: dict[str, Any]) -> Outcome:
        key = key_of(content)
        self._found.add(key)
        self.warehouse.mark_current(self.problem.name, self.stage, part, key)
        self.warehouse.remember_origin(key, content)
        reason = f"{key[:8]} is here already"
        self.reporter.end(part, f"reused  ({reason})")
        return Outcome(part, key, "reused", 0.0, reason)

    def _restore(self, part: str, content: dict[str, Any]) -> Outcome:
        """The rows from the record in the artifact: nothing is trained again."""
        record = json.loads((self.store.fetch(key_of(content)) / _RECORD).read_text("utf-8"))
        tables = {name: pa.table(columns) for name, columns in record["tables"].items()}
        made = Made(tables, record["details"])
        return self._save(part, content, made, record["seconds"], "restored")

    def _save(
        self, part: str, content: dict[str, Any], made: Made, seconds: float, action: Action
    ) -> Outcome:
        key, reason = key_of(content), self._reason(part, content)
        product = Product(
            key=key,
            stage=self.stage,
            part=part,
            problem=self.problem.name,
            run_id=self.context.run.run_id,
            seconds=seconds,
            seed=self.plan.seed,
            details=made.details,
            content=content,
            reason=reason,
        )
        self.warehouse.save_product(product, made.tables)
        rows = sum(table.num_rows for table in made.tables.values())
        what = f"{rows:,} rows in " if rows else ""
        told = "" if reason == _FIRST else f"  ({reason})"
        self.reporter.end(part, f"{action}  {what}{seconds:.1f} s{told}")
        return Outcome(part, key, action, seconds, reason)

    def _reason(self, part: str, content: dict[str, Any]) -> str:
        """Why this is made: what changed since the product that the problem shows."""
        if not self.warehouse.snapshot.exists():
            return _FIRST
        shown = self.warehouse.read(_SHOWN, [self.problem.name, self.stage, part]).to_pylist()
        if not shown:
            return _FIRST
        if shown[0]["key"] == key_of(content):
            return "by force" if self._force else "rows or files of the same key were missing"
        if shown[0]["content"] is None:
            return f"the one before, {shown[0]['key'][:8]}, did not say what it followed from"
        return why(content, json.loads(shown[0]["content"]))

    # ---- telling

    def result(
        self, outcomes: list[Outcome], metadata: dict[str, Any] | None = None
    ) -> dg.MaterializeResult:
        """What Dagster records of the stage; `metadata` adds to counts, seconds, keys, actions and
        their reasons."""
        counts = self._row_counts([outcome.key for outcome in outcomes])
        actions = {outcome.action for outcome in outcomes} or {"nothing to make"}
        keys = {outcome.part or self.stage: outcome.key for outcome in outcomes}
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": sum(counts.values()),
                "rows": dg.MetadataValue.json(counts),
                "seconds": round(sum(outcome.seconds for outcome in outcomes), 2),
                "action": actions.pop() if len(actions) == 1 else "partly reused",
                "key": dg.MetadataValue.json(keys),
                "why": dg.MetadataValue.json({o.part or self.stage: o.reason for o in outcomes}),
                "seed": self.plan.seed,
                **({"max_steps": self.plan.max_steps} if self.plan.max_steps else {}),
                **(metadata or {}),
            },
            data_version=dg.DataVersion("+".join(keys.values())),
        )

    def _row_counts(self, keys: list[str]) -> dict[str, int]:
        sql = "select row_counts from facts.products where list_contains(?, key)"
        total: dict[str, int] = {}
        for row in self.warehouse.read(sql, [keys])["row_counts"].to_pylist():
            for table, count in json.loads(row).items():
                total[table] = total.get(table, 0) + count
        return total


def _write_record(folder: Path, made: Made, seconds: float) -> None:
    record = {
        "tables": {name: table.to_pydict() for name, table in made.tables.items()},
        "details": made.details,
        "seconds": seconds,
    }
    (folder / _RECORD).write_text(json.dumps(record), encoding="utf-8")
