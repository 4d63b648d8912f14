"""Problems with an inbox and files to drop, for tests."""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from panacea_lib.data.inbox import Outcome, receive
from panacea_lib.problem import Problem
from panacea_lib.problem_files import load_problem
from panacea_lib.workspace import Workspace

WARM = {"layout": "pairs", "labels": {"warm": {"preferred": "warm"}, "short": {"preferred": "s"}}}


def real_problem(folder: Path, **changes: Any) -> Path:
    """A problem on a file of forty pairs, with an inbox for more of them."""
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder / "first.jsonl", 40, "p")
    values = {
        "name": "mine",
        "dimensions": [{"name": "warm"}, {"name": "short"}],
        "data": {"kind": "file", "path": "first.jsonl", "columns": WARM},
        "inbox": {"columns": WARM},
        "base_model": {"kind": "scratch"},
        **changes,
    }
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(json.loads(json.dumps(values)), sort_keys=False))
    return path


def write_rows(path: Path, count: int, prompt: str) -> None:
    rows = [
        {
            "prompt": f"{prompt}{i}",
            "response_a": "x",
            "response_b": "y",
            "warm": "ab"[i % 2],
            "s": i % 3 / 2,
        }
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def drop_folder(workspace: Workspace, problem: str) -> Path:
    folder = workspace.inbox / problem
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def take(file: Path, workspace: Workspace, later: float = 60, **options: Any) -> list[Outcome]:
    """Everything that is received `later` seconds from now."""
    now = datetime.now(UTC) + timedelta(seconds=later)
    return list(receive(load_problem(file, workspace), file, workspace, now, **options))


def loaded(file: Path, workspace: Workspace) -> Problem:
    return load_problem(file, workspace)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file and link below a folder, hidden ones too, and what it holds."""
    return {
        path.relative_to(folder).as_posix(): (
            os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes()
        )
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }
