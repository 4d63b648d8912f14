"""Where a team's things lie: one root, and under it problems, warehouse, artifacts, instance."""

import os
from dataclasses import dataclass
from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Workspace:
    """The folders of one installation; nothing here is created until something is written."""

    root: Path

    @classmethod
    def current(cls) -> "Workspace":
        """`PANACEA_HOME` where it is set, else the project's own root."""
        return cls(Path(os.environ.get("PANACEA_HOME", PROJECT_ROOT)).resolve())

    @property
    def problem_dirs(self) -> list[Path]:
        """The shipped problems, then the folders that `PANACEA_PROBLEMS` names (`:`-separated)."""
        extra = os.environ.get("PANACEA_PROBLEMS", "")
        shipped = PROJECT_ROOT / "assets_data" / "problems"
        return [shipped, *(Path(p).expanduser() for p in extra.split(os.pathsep) if p)]

    @property
    def warehouse(self) -> Path:
        """The DuckDB file; only `panacea_lib.warehouse` opens it."""
        return self.root / "var" / "warehouse" / "panacea.duckdb"

    @property
    def artifacts(self) -> str:
        """The artifact store: a local folder, or any fsspec URL in `PANACEA_ARTIFACTS`."""
        return os.environ.get("PANACEA_ARTIFACTS", str(self.root / "var" / "artifacts"))

    @property
    def judged(self) -> Path:
        """What judges have answered, kept by content: nothing is paid for twice."""
        return self.root / "var" / "judges"

    @property
    def inbox(self) -> Path:
        """Where new data files are dropped, a folder per problem (`panacea_lib.data.inbox`)."""
        return self.root / "var" / "inbox"

    @property
    def received(self) -> Path:
        """New data files that were checked and taken, a folder per problem: data, so keep them."""
        return self.root / "var" / "received"

    @property
    def reports(self) -> Path:
        """Finished reports, one HTML file per problem."""
        return self.root / "var" / "reports"

    @property
    def models(self) -> Path:
        """Trained policies with their model cards, PROBLEM/METHOD: copies, to be handed on."""
        return self.root / "var" / "models"
