"""What the stages of a problem have made, by its plan as it is now."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from panacea_lib.artifact_store import ArtifactStore
from panacea_lib.errors import MissingUpstreamError
from panacea_lib.plan import Plan
from panacea_lib.problem_files import find_problems, load_problem_named
from panacea_lib.warehouse import Warehouse
from panacea_lib.workspace import Workspace


class Upstream:
    """One problem under one seed and one cap on steps: its plan, and what is there of it.

    `reader` is who needs it, for errors: a stage or a command.
    """

    def __init__(
        self,
        reader: str,
        workspace: Workspace,
        problem: str,
        seed: int | None = None,
        max_steps: int | None = None,
    ) -> None:
        """InputError: no such problem, a bad file, or data that is missing."""
        self.reader = reader
        self.workspace = workspace
        self.problem = load_problem_named(workspace, problem)
        self.problem_file = find_problems(workspace)[problem]
        self.plan = Plan.of(self.problem, self.problem_file, seed, max_steps)
        self.warehouse = Warehouse(workspace.warehouse)
        self.store = ArtifactStore(workspace.artifacts)
        self._found: set[str] = set()  # keys seen to be complete: asking costs a connection

    def rows(self, table: str, stage: str, part: str = "") -> pa.Table:
        """Rows of facts.`table` that `stage` made; MissingUpstreamError where it has not."""
        return self.warehouse.rows(table, self.made(stage, part))

    def details(self, stage: str, part: str = "") -> dict[str, Any]:
        """What `stage` said of its product; MissingUpstreamError where it made none."""
        key = self.made(stage, part)
        found = self.warehouse.read("select details from facts.products where key = ?", [key])
        return json.loads(found["details"][0].as_py())

    def artifact(self, stage: str, part: str = "") -> Path:
        """The model that `stage` made, to be read only; MissingUpstreamError where it made none."""
        key = self.plan.key(stage, part)
        if not self.store.is_complete(key):
            raise self._missing(stage, part)
        return self.store.fetch(key)

    def made(self, stage: str, part: str = "") -> str:
        """The key under which `stage` has made its rows; MissingUpstreamError where it has not."""
        key = self.plan.key(stage, part)
        if not self.is_made(stage, part):
            raise self._missing(stage, part)
        return key

    def is_made(self, stage: str, part: str = "") -> bool:
        """Whether `stage` has made its rows."""
        key = self.plan.key(stage, part)
        if key not in self._found and self.warehouse.is_complete(key):
            self._found.add(key)
        return key in self._found

    def _missing(self, stage: str, part: str) -> MissingUpstreamError:
        name = self.problem.name
        settings = f"seed {self.plan.seed}" + (
            f" and at most {self.plan.max_steps} steps" if self.plan.max_steps else ""
        )
        what = f"{stage} ({part})" if part else stage
        return MissingUpstreamError(
            f"{self.reader} of {name} needs {what}, which is not there for {settings} and the "
            f"problem as it is now: run `panacea materialize {name} --select {stage}` with the "
            "same settings, or materialize that asset in the UI"
        )
