"""New data files: taken whole, checked, each exactly once, wherever a process dies."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import TESTS
from hypothesis import given, settings
from hypothesis import strategies as st
from inbox_files import drop_folder, real_problem, take, tree, write_rows

from panacea_lib.data import inbox as inbox_module
from panacea_lib.data import inbox_files as moves_module
from panacea_lib.data.inbox import InboxBusyError, Received, Rejected, Waiting, receive
from panacea_lib.errors import InputError
from panacea_lib.problem_files import load_problem
from panacea_lib.received import part_of, received_files, received_name
from panacea_lib.workspace import Workspace

MODULES = {str(module.__file__) for module in (inbox_module, moves_module)}


@pytest.fixture
def place(tmp_path: Path) -> tuple[Path, Workspace, Path]:
    """A problem's file, a workspace, and the problem's drop folder."""
    workspace = Workspace(tmp_path / "home")
    return real_problem(tmp_path / "problems"), workspace, drop_folder(workspace, "mine")


# ---- complete files only


def test_a_file_is_left_alone_until_it_has_settled(place):
    file, workspace, folder = place
    write_rows(folder / "new.jsonl", 3, "q")
    os.utime(folder / "new.jsonl", (0, 0))  # as `cp --preserve` leaves it: only ctime tells
    before = tree(workspace.root)
    (waiting,) = take(file, workspace, later=20)
    assert isinstance(waiting, Waiting) and "less than 30 s ago" in waiting.reason
    assert tree(workspace.root) == before
    (received,) = take(file, workspace, later=31)
    assert isinstance(received, Received) and received.counts["pairs"] == 3


@pytest.mark.parametrize(
    "name", ["a.jsonl.part", "a.csv.tmp", "a.parquet.crdownload", "a.csv~", "A.CSV.PARTIAL"]
)
def test_a_name_that_says_partial_is_believed(place, name):
    file, workspace, folder = place
    write_rows(folder / name, 3, "q")
    (waiting,) = take(file, workspace)
    assert isinstance(waiting, Waiting) and "not complete" in waiting.reason
    assert (folder / name).exists()


def test_hidden_files_and_folders_stay(place):
    file, workspace, folder = place
    write_rows(folder / ".hidden.jsonl", 3, "q")
    (folder / "more").mkdir()
    write_rows(folder / "more" / "a.jsonl", 3, "q")
    before = tree(workspace.root)
    (waiting,) = take(file, workspace)
    assert isinstance(waiting, Waiting) and "folder" in waiting.reason
    assert tree(workspace.root) == before


def test_parquet_without_its_end_waits_then_is_refused(place):
    file, workspace, folder = place
    rows = {"prompt": ["q"], "response_a": ["x"], "response_b": ["y"], "warm": ["a"], "s": ["b"]}
    pq.write_table(pa.table(rows), folder / "new.parquet")
    whole = (folder / "new.parquet").read_bytes()
    (folder / "new.parquet").write_bytes(whole[:-8])
    (waiting,) = take(file, workspace)
    assert isinstance(waiting, Waiting) and "its end is missing" in waiting.reason
    (folder / "other.parquet").write_bytes(whole)
    first, second = take(file, workspace, later=700)
    assert isinstance(first, Rejected) and "not Parquet, or damaged" in first.reason
    assert isinstance(second, Received)


def test_a_file_that_changes_while_it_is_read_is_left(place, monkeypatch):
    file, workspace, folder = place
    write_rows(folder / "new.jsonl", 3, "q")
    check = inbox_module.check_joining

    def slow(*arguments: Any) -> dict[str, int]:
        found = check(*arguments)
        write_rows(folder / "new.jsonl", 4, "q")
        return found

    monkeypatch.setattr(inbox_module, "check_joining", slow)
    (waiting,) = take(file, workspace)
    assert isinstance(waiting, Waiting) and "while it was read" in waiting.reason
    assert received_files("mine", workspace) == []


def test_a_file_that_is_taken_away_is_no_error(place, monkeypatch):
    file, workspace, folder = place
    write_rows(folder / "new.jsonl", 3, "q")
    hashed = inbox_module.file_hash

    def gone(path: Path) -> str:
        digest = hashed(path)
        path.unlink()
        return digest

    monkeypatch.setattr(inbox_module, "file_hash", gone)
    (waiting,) = take(file, workspace)
    assert isinstance(waiting, Waiting) and "took it away" in waiting.reason


# ---- bad files


def test_a_bad_file_is_set_aside_with_its_error_beside_it(place):
    file, workspace, folder = place
    write_rows(folder / "bad.jsonl", 3, "q")
    text = (folder / "bad.jsonl").read_text()
    (folder / "bad.jsonl").write_text(text.replace('"warm": "b"', '"warm": 7'))
    (rejected,) = take(file, workspace)
    assert isinstance(rejected, Rejected) and not rejected.duplicate
    assert rejected.path == folder / "rejected" / "bad.jsonl" and rejected.path.exists()
    told = (folder / "rejected" / "bad.jsonl.error.txt").read_text()
    assert told.strip() == rejected.reason
    assert told.startswith("bad.jsonl, line 2, column 'warm': 7.0 is no probability; write ")
    assert take(file, workspace) == [], "what was set aside is not looked at again"


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("notes.txt", "hello", "its ending tells no format; convert it to one of .jsonl"),
        ("none", "hello", "its ending tells no format"),
        ("empty.csv", "", "the file is empty"),
        ("head.csv", "prompt,response_a,response_b,warm,s\n", "there are no rows"),
        ("short.csv", "prompt,response_a\nq,x\n", "mend inbox.columns in the problem"),
        ("same.csv", "prompt,response_a,response_b,warm,s\nq,x,x,a,b\n", "no row gives a labelled"),
    ],
)
def test_what_is_wrong_is_said(place, name, text, why):
    file, workspace, folder = place
    (folder / name).write_text(text)
    (rejected,) = take(file, workspace)
    assert isinstance(rejected, Rejected) and why in rejected.reason
    assert str(folder) not in rejected.reason, "where it lay is nobody's business any more"
    assert sorted(tree(folder)) == [f"rejected/{name}", f"rejected/{name}.error.txt"]
    assert received_files("mine", workspace) == []


def test_a_link_is_not_followed(place, tmp_path):
    file, workspace, folder = place
    write_rows(tmp_path / "secret.jsonl", 3, "q")
    (folder / "link.jsonl").symlink_to(tmp_path / "secret.jsonl")
    (folder / "nowhere.jsonl").symlink_to("/nowhere/at/all")
    outcomes = take(file, workspace)
    assert all(isinstance(o, Rejected) and "symbolic link" in o.reason for o in outcomes)
    assert (folder / "rejected" / "link.jsonl").is_symlink()
    assert (tmp_path / "secret.jsonl").exists() and received_files("mine", workspace) == []


def test_another_bad_file_of_the_same_name_displaces_none(place):
    file, workspace, folder = place
    for text in ("one", "two", "one", "three"):
        (folder / "a.txt").write_text(text)
        take(file, workspace)
    found = tree(folder / "rejected")
    assert {name: found[name] for name in found if not name.endswith(".error.txt")} == {
        "a.txt": b"one",
        "2-a.txt": b"two",
        "3-a.txt": b"three",
    }
    assert all(f"{name}.error.txt" in found for name in ("a.txt", "2-a.txt", "3-a.txt"))


entry_names = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=60
).filter(lambda name: name not in (".", "..") and len(os.fsencode(name)) <= 255)


@settings(max_examples=40, deadline=None)
@given(name=st.one_of(entry_names, entry_names.map(lambda name: name[:40] + ".jsonl")))
def test_no_name_leads_anywhere_else(name):
    """Whatever a file is called, it ends in one of the three folders, and its content is whole."""
    with tempfile.TemporaryDirectory() as home:
        root = Path(home).resolve()
        file, workspace = real_problem(root / "problems"), Workspace(root / "home")
        folder = drop_folder(workspace, "mine")
        write_rows(folder / name, 3, "q")
        content = (folder / name).read_bytes()
        outcomes = take(file, workspace)
        left = tree(workspace.root)
        assert [text for text in left.values() if text == content] == [content]
        place = next(path for path in left if left[path] == content)
        assert re.match(r"var/(inbox/mine/(rejected/)?|received/mine/)[^/]+$", place)
        for outcome in outcomes:
            assert outcome.name.isprintable()
            if isinstance(outcome, Received):
                assert re.fullmatch(r"[\w-]+", part_of(outcome.path.name))


def test_a_name_that_is_not_text_can_be_set_aside_and_told(place):
    file, workspace, folder = place
    for name in (b"\xff.jsonl", b"a\nb.jsonl", b"${HOME}.jsonl", b"x" * 250):
        (Path(os.fsdecode(os.fsencode(folder) + b"/" + name))).write_text("x")
    outcomes = take(file, workspace)
    assert len(outcomes) == 4
    for outcome in outcomes:
        assert isinstance(outcome, Rejected) and "its name is" in outcome.reason
        assert (outcome.name + outcome.reason).encode()
        assert re.fullmatch(r"[\w.-]+", outcome.path.name) and outcome.path.exists()


# ---- exactly once


def test_the_same_content_is_taken_once_under_any_name(place):
    file, workspace, folder = place
    for name in ("b.jsonl", "a.jsonl"):
        write_rows(folder / name, 3, "q")
    first, second = take(file, workspace)
    assert isinstance(first, Received) and first.name == "a.jsonl"
    assert isinstance(second, Rejected) and second.duplicate
    assert f"received already, as {first.path.name}" in second.reason
    write_rows(folder / "a.jsonl", 3, "q")
    (third,) = take(file, workspace)
    assert isinstance(third, Rejected) and third.duplicate
    assert received_files("mine", workspace) == [first.path]


def test_only_one_process_takes_files_at_a_time(place):
    file, workspace, folder = place
    write_rows(folder / "a.jsonl", 3, "q")
    write_rows(folder / "b.jsonl", 3, "r")
    taking = receive(load_problem(file, workspace), file, workspace, settled=0)
    assert isinstance(next(taking), Received)
    with pytest.raises(InboxBusyError, match="another process"):
        take(file, workspace)
    taking.close()
    assert [type(outcome) for outcome in take(file, workspace)] == [Received]


def test_a_dry_run_moves_nothing(place):
    file, workspace, folder = place
    write_rows(folder / "a.jsonl", 3, "q")
    (folder / "b.txt").write_text("x")
    before = tree(workspace.root)
    assert [type(o) for o in take(file, workspace, dry_run=True)] == [Received, Rejected]
    assert tree(workspace.root) == before


class Killed(BaseException):
    """The process is gone: nothing catches this."""


def run_until(step: int, file: Path, workspace: Workspace) -> bool:
    """Take files, and die before the line of that number is run; False where all was done."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        # `_alone` lets go of the lock, which the system does when a process is really gone.
        if frame.f_code.co_filename not in MODULES or frame.f_code.co_name == "_alone":
            return None
        count += event == "line"
        if event == "line" and count == step:
            raise Killed
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        take(file, workspace)
    except Killed:
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.mark.parametrize("other_file_system", [False, True])
def test_whichever_line_a_process_dies_before_nothing_is_lost_or_taken_twice(
    tmp_path, other_file_system
):
    memory = Path("/dev/shm")
    if other_file_system and not memory.is_dir():
        pytest.skip("there is no second file system here")
    file, step = real_problem(tmp_path / "problems"), 0
    while True:
        step += 1
        workspace = Workspace(tmp_path / f"home{step}")
        folder = drop_folder(workspace, "mine")
        if other_file_system:
            folder.rmdir()
            folder.symlink_to(tempfile.mkdtemp(dir=memory))
        write_rows(folder / "good.jsonl", 3, "q")
        (folder / "bad.txt").write_text("bad")
        good = (folder / "good.jsonl").read_bytes()
        died = run_until(step, file, workspace)
        received = {path.read_bytes() for path in received_files("mine", workspace)}
        assert good in received | set(tree(folder.resolve()).values())
        take(file, workspace)  # the next process
        assert [p.read_bytes() for p in received_files("mine", workspace)] == [good], step
        left = tree(folder.resolve())
        assert left.pop("rejected/bad.txt") == b"bad"
        assert b"its ending tells no format" in left.pop("rejected/bad.txt.error.txt")
        # Of a copy between file systems whose source was not yet deleted; never received again.
        left = {name: text for name, text in left.items() if not name.startswith("rejected/good")}
        assert not [name for name in left if not Path(name).name.startswith(".")], step
        shutil.rmtree(folder.resolve())
        shutil.rmtree(workspace.root)
        if not died:
            break
    assert step > 40, "every line was a place to die"


KILLED = """
import os, signal, sys
from pathlib import Path
from inbox_files import take
from panacea_lib.data import inbox_files
from panacea_lib.workspace import Workspace
real = inbox_files.move
def move(source, target):
    if sys.argv[3] == "after":
        real(source, target)
    os.kill(os.getpid(), signal.SIGKILL)
from panacea_lib.data import inbox
inbox.move = move
take(Path(sys.argv[1]), Workspace(Path(sys.argv[2])))
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_kill_9_leaves_neither_a_lock_nor_half_a_file(place, when):
    file, workspace, folder = place
    write_rows(folder / "new.jsonl", 3, "q")
    content = (folder / "new.jsonl").read_bytes()
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(file), str(workspace.root), when],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])},
    )
    assert killed.returncode == -signal.SIGKILL
    outcomes = take(file, workspace)
    assert [type(outcome) for outcome in outcomes] == ([Received] if when == "before" else [])
    assert [path.read_bytes() for path in received_files("mine", workspace)] == [content]


# ---- what may not be


def test_a_problem_without_an_inbox_takes_nothing(tmp_path):
    file = real_problem(tmp_path, inbox=None)
    workspace = Workspace(tmp_path / "home")
    with pytest.raises(InputError, match="give it a section `inbox`"):
        take(file, workspace)


def test_no_folder_is_no_files_and_makes_none(tmp_path):
    file, workspace = real_problem(tmp_path), Workspace(tmp_path / "home")
    assert take(file, workspace) == []
    assert not workspace.root.exists()


def test_a_file_that_was_put_among_the_received_by_hand_is_refused(place):
    file, workspace, _ = place
    (workspace.received / "mine").mkdir(parents=True)
    write_rows(workspace.received / "mine" / "own.jsonl", 3, "q")
    with pytest.raises(InputError, match=r"own\.jsonl: only checked files may lie here; move it"):
        load_problem(file, workspace)


@given(st.text(min_size=1, max_size=80), st.sampled_from([".csv", ".jsonl.gz", ".parquet"]))
def test_a_received_name_is_plain_and_names_a_part(stem, ending):
    from datetime import UTC, datetime

    name = received_name(stem + ending, ending, "ab" * 32, datetime(2026, 1, 2, tzinfo=UTC))
    assert re.fullmatch(r"20260102T000000Z-[\w-]+-(ab){8}" + re.escape(ending), name)
    assert re.fullmatch(r"[^\s/][^\n/]{0,63}", part_of(name))
