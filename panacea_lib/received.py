"""The files that a problem has received through its inbox: named for good, part of its data.

A received file is called TIME-STEM-HASH and its ending: the time orders the files, the hash is how
its SHA-256 begins. Its part of the data is called STEM-HASH, so that no time is in a content key.
"""

import re
from datetime import datetime
from pathlib import Path

from panacea_lib.errors import InputError
from panacea_lib.problem import Problem
from panacea_lib.problem_data import FileData, SeveralData, WorldData, license_of, parts_of
from panacea_lib.workspace import Workspace

HASH_DIGITS = 16
_STEM_LENGTH = 40
_NAME = re.compile(r"\d{8}T\d{6}Z-(?P<part>[\w-]+-[0-9a-f]{16})\.\w+(\.gz)?")


def received_name(name: str, ending: str, digest: str, now: datetime) -> str:
    """What a file of that name, ending and SHA-256 is called once it is received at `now` (UTC)."""
    stem = re.sub(r"[^\w-]+", "-", name[: -len(ending)])[:_STEM_LENGTH].strip("-") or "data"
    return f"{now:%Y%m%dT%H%M%SZ}-{stem}-{digest[:HASH_DIGITS]}{ending}"


def received_files(problem: str, workspace: Workspace) -> list[Path]:
    """What a problem has received, in the order of the names.

    InputError: a file that was put there by hand.
    """
    folder = workspace.received / problem
    if not folder.is_dir():
        return []
    found = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    for path in found:
        if not _NAME.fullmatch(path.name):
            raise InputError(
                f"{path}: only checked files may lie here; move it to {workspace.inbox / problem}"
            )
    return found


def part_of(name: str) -> str:
    """What the part of the data is called that a received file makes."""
    match = _NAME.fullmatch(name)
    assert match is not None, name
    return match["part"]


def with_received(problem: Problem, workspace: Workspace) -> Problem:
    """The problem with its received files among its data; as it is without an inbox or files.

    Of the embedded world they become `data.files`, of other data further parts.
    """
    files = received_files(problem.name, workspace) if problem.inbox else []
    if problem.inbox is None or not files:
        return problem
    data = problem.data
    parts = [
        FileData(
            kind="file",
            name=part_of(path.name),
            license=license_of(data),  # whoever drops a file there says that it is of the same
            path=str(path),
            columns=problem.inbox.columns,
        )
        for path in files
    ]
    if isinstance(data, WorldData):
        joined = data.model_copy(update={"files": [*data.files, *parts]})
    else:
        joined = SeveralData(
            kind="several",
            license=data.license,
            parts=[*parts_of(data), *parts],
            split=data.split,
        )
    return problem.model_copy(update={"data": joined})
