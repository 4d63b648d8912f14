"""New data files of a problem: taken from its drop folder whole, checked, and each exactly once.

A file changes its place by one rename, at the end, and where it lies is all that is remembered:
var/inbox/PROBLEM/ (new), its subfolder rejected/ (with NAME.error.txt beside NAME), or
var/received/PROBLEM/, where it is part of the problem's data. So a process may die anywhere; the
next one begins with the same file anew, or finds that it was taken.
"""

import fcntl
import os
import re
import stat
from collections.abc import Generator, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from panacea_lib.data import named_part
from panacea_lib.data.fingerprint import file_hash
from panacea_lib.data.gathering import check_joining
from panacea_lib.data.inbox_files import move, set_aside
from panacea_lib.data.sources import FORMATS, file_format
from panacea_lib.errors import InputError
from panacea_lib.problem import Problem
from panacea_lib.problem_data import FileData, WorldData
from panacea_lib.received import HASH_DIGITS, received_files, received_name
from panacea_lib.workspace import Workspace

SETTLED = 30.0
"""Seconds that a file must have been left alone before it counts as complete."""
REJECTED = "rejected"
_PATIENCE = 600.0  # seconds for a Parquet file without its end, which a slow upload may bring yet
_PARTIAL = (".part", ".partial", ".tmp", ".temp", ".crdownload", ".filepart", ".swp", "~")
_GOOD_NAME = re.compile(r"\w[\w .,()+@=-]*")  # not $, *, / or what no terminal shows
_LONGEST_NAME = 200  # bytes; what is put around it must fit too


class InboxBusyError(Exception):
    """Another process is taking files from the same inbox."""


@dataclass(frozen=True)
class Received:
    """A file that is now part of the data; `path`: where it lies."""

    name: str
    path: Path
    counts: dict[str, int]


@dataclass(frozen=True)
class Rejected:
    """A file that was set aside at `path`, with the reason beside it; a duplicate is no mistake."""

    name: str
    path: Path
    reason: str
    duplicate: bool = False


@dataclass(frozen=True)
class Waiting:
    """What was left where it is."""

    name: str
    reason: str


Outcome = Received | Rejected | Waiting


def receive(
    problem: Problem,
    problem_file: Path,
    workspace: Workspace,
    now: datetime | None = None,
    settled: float = SETTLED,
    largest: int | None = None,
    dry_run: bool = False,
) -> Generator[Outcome, None, None]:
    """Take the files of the problem's drop folder one by one, in the order of their names, as the
    iterator is asked for the next; nothing where there is no folder.

    Others wait until the iterator is at its end or closed.

    now: in UTC; None: the clock's at every file. settled: seconds, see `SETTLED`. largest: bytes;
    larger files are left. dry_run: say what would be, and move nothing.

    InputError: the problem has no inbox. InboxBusyError: see there.
    """
    if problem.inbox is None:
        raise InputError(
            f"{problem_file}: {problem.name} takes no new files; give it a section `inbox` with "
            "the columns that they have (docs/inbox.md)"
        )
    folder = workspace.inbox / problem.name
    if not folder.is_dir():
        return
    with _alone(folder):
        inbox = _Inbox(problem, problem_file, workspace, now, settled, largest, dry_run)
        for name in sorted(path.name for path in folder.iterdir()):
            if not name.startswith(".") and name != REJECTED:
                try:
                    yield inbox.take(folder / name)
                except FileNotFoundError:
                    yield Waiting(_shown(name), "somebody took it away meanwhile")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which the system lets go of when the process ends."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InboxBusyError(
                f"{folder}: another process is taking files from it; try again when it is done"
            ) from error
        yield
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class _Inbox:
    problem: Problem
    problem_file: Path
    workspace: Workspace
    fixed_now: datetime | None
    settled: float
    largest: int | None
    dry_run: bool

    @property
    def now(self) -> datetime:
        return self.fixed_now or datetime.now(UTC)

    def take(self, path: Path) -> Outcome:
        """One entry of the folder: checked, then moved."""
        seen = path.lstat()
        if why := self._not_yet(path, seen):
            return Waiting(_shown(path.name), why)
        if why := _never(path, seen):
            return self._reject(path, why, None)
        digest = file_hash(path)
        earlier = self._received_as(digest)
        if earlier is not None:
            why = f"the same content was received already, as {earlier.name}; delete this file"
            return self._reject(path, why, digest, duplicate=True)
        try:
            counts = self._check(path)
        except InputError as error:
            # Of this file, not of where it lay; and its columns stand elsewhere than the data's.
            told = str(error).replace(str(path), path.name)
            return self._reject(path, told.replace("data.columns", "inbox.columns"), digest)
        if _signs(path.lstat()) != _signs(seen):
            return Waiting(_shown(path.name), "it was changed while it was read")
        ending = file_format(path)
        assert ending is not None, path  # a file of no known format fails the check
        name = received_name(path.name, ending, digest, self.now)
        target = self.workspace.received / self.problem.name / name
        if not self.dry_run:
            move(path, target)
        return Received(_shown(path.name), target, counts)

    def _not_yet(self, path: Path, seen: os.stat_result) -> str | None:
        """Why an entry is left where it is."""
        if stat.S_ISDIR(seen.st_mode):
            return "it is a folder; put its files beside it"
        if path.name.lower().endswith(_PARTIAL):
            return "its ending says that it is not complete; rename it when it is"
        # Not mtime, which copying may keep: ctime changes with every write and rename.
        age = self.now.timestamp() - seen.st_ctime
        if age < self.settled:
            return f"it changed less than {self.settled:g} s ago, so it may not be complete"
        if not stat.S_ISREG(seen.st_mode):
            return None
        if not os.access(path, os.R_OK):
            return "it may not be read by who takes files; give them the right"
        if self.largest is not None and seen.st_size > self.largest:
            return (
                f"its {seen.st_size / 2**20:,.0f} MiB take longer to read than a sensor may; run "
                f"`panacea inbox {self.problem.name}`"
            )
        if file_format(path) == ".parquet" and age < _PATIENCE and not _has_footer(path):
            return "its end is missing, so it is not complete"
        return None

    def _received_as(self, digest: str) -> Path | None:
        for path in received_files(self.problem.name, self.workspace):
            begins = path.name.split(".")[0].rsplit("-", 1)[1]
            if digest[:HASH_DIGITS] == begins and file_hash(path) == digest:
                return path
        return None

    def _check(self, path: Path) -> dict[str, int]:
        """Read the whole file as the pipeline will; InputError for whatever is bad."""
        problem = self.problem
        assert problem.inbox is not None
        data = FileData(kind="file", name="new", path=str(path), columns=problem.inbox.columns)
        part = named_part(data, self.problem_file)
        return check_joining(part, problem.keeps_unlabelled, world_texts(problem))

    def _reject(
        self, path: Path, reason: str, digest: str | None, duplicate: bool = False
    ) -> Rejected:
        folder = path.parent / REJECTED
        target = folder / path.name
        if not self.dry_run:
            target = set_aside(path, folder, reason, digest, _is_good(path.name))
        return Rejected(_shown(path.name), target, reason, duplicate)


def world_texts(problem: Problem) -> Set[str] | None:
    """The prompts that the embedded world draws for the problem; None for other data."""
    if not isinstance(problem.data, WorldData):
        return None
    from panacea_lib.world.data import world_prompts

    return {prompt.text for prompt in world_prompts(problem.data, problem.seed)}


def _never(path: Path, seen: os.stat_result) -> str | None:
    """Why an entry is not even opened."""
    if stat.S_ISLNK(seen.st_mode):
        return "it is a symbolic link, which may lead anywhere; copy the file itself"
    if not stat.S_ISREG(seen.st_mode):
        return f"it is no regular file; write one of {', '.join(FORMATS)}"
    if not _is_good(path.name):
        return (
            f"its name is {path.name!a}; name it by letters, digits, spaces and -_.,()+@=, a "
            f"letter or digit first, in at most {_LONGEST_NAME} bytes"
        )
    return None


def _is_good(name: str) -> bool:
    """Whether a name may be used as it is, in paths and in sentences."""
    return _GOOD_NAME.fullmatch(name) is not None and len(os.fsencode(name)) <= _LONGEST_NAME


def _shown(name: str) -> str:
    """A name as it may be printed."""
    return name if name.isprintable() else ascii(name)


def _has_footer(path: Path) -> bool:
    """Whether a Parquet file ends as one does."""
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - 4))
        return stream.read() == b"PAR1"


def _signs(seen: os.stat_result) -> tuple[int, ...]:
    """What changes when a file is written to, renamed or exchanged."""
    return seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns
