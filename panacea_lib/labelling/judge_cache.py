"""Answers of judges by content key, in one SQLite file: what was paid for is never asked again.

Every answer is committed when it comes. It outlives the death of any process; a power cut may cost
the last seconds' answers, never the file. One job at a time asks (`panacea_lib.labelling.
judge_process` holds the lock), any number of processes may read.
"""

import sqlite3
from pathlib import Path
from typing import NamedTuple

from panacea_lib.errors import InputError

_SCHEMA_VERSION = 1
_SCHEMA = """
create table answers (
    key text primary key,
    content text,                      -- the judge's message, as it came
    finish text,                       -- why it ended, as the server says
    failure text,                      -- why there is no answer; null where there is one
    input_tokens integer not null,
    output_tokens integer not null,
    run text not null
) without rowid
"""
# Pages in the log before they are copied into the file, which takes a wait for the disk: 40 MiB.
_LOG_PAGES = 10_000


class Answer(NamedTuple):
    """What is kept of one request.

    content, finish: the judge's message and why it ended; failure: why there is none, after all
    attempts. Tokens are the server's count, or characters / 4 where it has none.
    """

    content: str | None
    finish: str | None
    failure: str | None
    input_tokens: int
    output_tokens: int


class JudgeCache:
    """Key → answer; a context manager. InputError: the file is something else, or of another
    version of this program."""

    def __init__(self, path: Path, read_only: bool = False) -> None:
        self._path = path
        if read_only and not path.exists():
            self._db = sqlite3.connect(":memory:", isolation_level=None)
        elif read_only:
            uri = f"{path.resolve().as_uri()}?mode=ro"
            self._db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=60)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None, timeout=60)
        try:
            self._prepare(read_only)
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise InputError(f"{path}: is no cache of judges ({error}); move it away") from error

    def _prepare(self, read_only: bool) -> None:
        version = self._db.execute("pragma user_version").fetchone()[0]
        tables = self._db.execute("select count(*) from sqlite_master").fetchone()[0]
        if version != _SCHEMA_VERSION and (version or tables):
            raise sqlite3.DatabaseError(f"schema version {version}, not {_SCHEMA_VERSION}")
        if not read_only:
            self._db.execute("pragma journal_mode = wal")
            self._db.execute("pragma synchronous = normal")
            self._db.execute(f"pragma wal_autocheckpoint = {_LOG_PAGES}")
        if not tables:
            self._db.execute("begin immediate")
            self._db.execute(_SCHEMA)
            self._db.execute(f"pragma user_version = {_SCHEMA_VERSION}")
            self._db.execute("commit")

    def __enter__(self) -> "JudgeCache":
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def find(self, key: str) -> Answer | None:
        """What is kept under the key; None where nothing is."""
        row = self._db.execute(
            "select content, finish, failure, input_tokens, output_tokens from answers "
            "where key = ?",
            [key],
        ).fetchone()
        return None if row is None else Answer._make(row)

    def is_settled(self, key: str, run: str) -> bool:
        """Whether nothing is to be asked: there is an answer, or this run has tried in vain."""
        found = self._db.execute(
            "select 1 from answers where key = ? and (failure is null or run = ?)", [key, run]
        )
        return found.fetchone() is not None

    def keep(self, key: str, answer: Answer, run: str) -> None:
        """Commit one answer; an earlier failure under the key is replaced."""
        self._db.execute("replace into answers values (?, ?, ?, ?, ?, ?, ?)", [key, *answer, run])


class Distinct:
    """A set of keys that may outgrow memory: a private SQLite file that goes with the process."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.execute("pragma journal_mode = off")
        self._db.execute("pragma synchronous = off")
        self._db.execute("create table keys (key text primary key) without rowid")
        self._db.execute("begin")

    def add(self, key: str) -> bool:
        """Whether the key is new."""
        return self._db.execute("insert or ignore into keys values (?)", [key]).rowcount > 0
