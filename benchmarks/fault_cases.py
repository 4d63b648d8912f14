"""The faults: each spoils a workspace, lets the next run finish it, and says what came of it."""

import json
import random
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from benchmarks.fault_world import (
    BEFORE_TRAINING,
    OTHER,
    PROBLEM,
    State,
    completed,
    half_tables,
    kill,
    log_of,
    run,
    start,
    state_of,
    stored,
    warehouse_of,
    work_until,
)

FULL = "the disk is full"
POLL = 0.02  # s


@dataclass(frozen=True)
class Ready:
    """What tries share: where they work, and what was made undisturbed.

    Attributes:
        folder: Of the tries' own workspaces.
        whole: A finished workspace of one problem.
        begun: One in which everything up to the training is made.
        expected: State of `whole`; `expected_two`: with the second problem beside it.
        seconds, work: What the undisturbed run took, by the clock and of CPU.
    """

    folder: Path
    whole: Path
    begun: Path
    expected: State
    expected_two: State
    seconds: float
    work: float

    def copy(self, source: Path) -> Path:
        """A fresh workspace that holds what `source` does."""
        home = self.fresh()
        shutil.copytree(source, home)
        return home

    def fresh(self) -> Path:
        """A workspace that does not exist yet; the one before is gone."""
        home = self.folder / "home"
        shutil.rmtree(home, ignore_errors=True)
        return home


@dataclass(frozen=True)
class Tried:
    """What came of one try; `wrong` names every difference, and is empty where all is well.

    Attributes:
        what: What was done, and when.
        told: What the disturbed run said, in one line; empty for one that was killed.
        recovered: Whether the next run ended with 0.
        wrong: Differences from the undisturbed result, half tables, and what was lost.
    """

    what: str
    told: str
    recovered: bool
    wrong: list[str]


Fault = Callable[[Ready, random.Random], Tried]


def finish(home: Path, expected: State, what: str, told: str = "", early: str = "") -> Tried:
    """The next run, and everything that must hold after it; `early` is wrong already."""
    before, sealed = completed(home), stored(home)
    ended = run(home)
    wrong = [early] if early else []
    if ended.code:
        return Tried(what, told, False, [*wrong, f"exit {ended.code}: {ended.told[-600:]}"])
    return Tried(what, told, True, wrong + wrongs(home, expected, before, sealed))


def wrongs(
    home: Path, expected: State, before: Mapping[str, datetime], sealed: Mapping[str, int]
) -> list[str]:
    """What differs from the undisturbed result, is half, or was there before and was lost."""
    after, seals = completed(home), stored(home)
    lost = [f"product {key[:8]} made again" for key in before if after.get(key) != before[key]]
    lost += [f"artifact {key[:8]} made again" for key in sealed if seals.get(key) != sealed[key]]
    half = [f"half: {table}" for table in half_tables(home)]
    return lost + half + [f"differs: {name}" for name in expected.differences(state_of(home))]


def last_line(text: str, word: str) -> str:
    """The first line that holds `word`, else the last one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in lines if word in line), lines[-1] if lines else "")[:500]


# ---- killed


def kill9(ready: Ready, rng: random.Random) -> Tried:
    """kill -9 at a random moment of a run from nothing."""
    home, moment = ready.fresh(), rng.uniform(0, ready.work)
    process = start(home)
    work_until(process, moment)
    what = f"at {moment:.1f} of {ready.work:.1f} s of CPU"
    if process.poll() is not None:
        what += ", where it had ended"
    kill(process)
    return finish(home, ready.expected, f"{what}, {len(completed(home))} products made")


def truncated_checkpoint(ready: Ready, rng: random.Random) -> Tried:
    """Killed in a training, and a file of its newest checkpoint cut at a random length."""
    home, nth = ready.copy(ready.begun), rng.randint(1, 4)
    process, seen, newest = start(home), set[str](), None
    while newest is None and process.poll() is None:
        time.sleep(POLL)
        states = checkpoint_states(home)
        works = {state.parent.parent for state in states}
        for work in (w for w in works if sum(s.parent.parent == w for s in states) >= 2):
            seen.add(str(work))
            if len(seen) == nth:
                newest = work
    kill(process)
    found = sorted(newest.glob("checkpoint-*"), key=_step) if newest else []
    if not found:
        return finish(home, ready.expected, "the training had ended when it was killed")
    files = ["adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"]
    target = found[-1] / rng.choice([*files, "trainer_state.json"])
    content = target.read_bytes() if target.exists() else b""
    left = rng.randrange(len(content)) if content else 0
    target.write_bytes(content[:left])
    what = f"training {nth}, {found[-1].name}/{target.name}: {left:,} of {len(content):,} bytes"
    return finish(home, ready.expected, what)


def checkpoint_states(home: Path) -> list[Path]:
    """The state files of all checkpoints of trainings that have not ended."""
    try:
        return [*home.glob("var/artifacts/.work/*/**/checkpoint-*/trainer_state.json")]
    except FileNotFoundError:  # the run tidied up while we looked
        return []


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.split("-")[1])


# ---- the disk is full


@contextmanager
def small_disk(folder: Path, spare: int) -> Iterator[Callable[[], None]]:
    """A disk of its own on `folder`, with its content and `spare` more bytes; yields what makes it
    large. Needs root."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder.with_name(f"{folder.name}.kept")
    folder.rename(kept)
    folder.mkdir()
    _mount("-t", "tmpfs", "-o", "size=1g", "tmpfs", str(folder))
    try:
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        shutil.rmtree(kept)
        used = shutil.disk_usage(folder).used
        _mount("-o", f"remount,size={used + max(spare, 4096)}", str(folder))
        yield lambda: _mount("-o", "remount,size=1g", str(folder))
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


def _filled(
    ready: Ready, home: Path, folder: Path, spare: int, hit: str, roomy: Path | None = None
) -> Tried:
    """Run on a disk that fills up, watch the snapshot, then give the space back.

    `hit` is what the error must name; `roomy` a folder inside that has a disk of its own.
    """
    warehouse = warehouse_of(home)
    before = warehouse.read("from facts.products").num_rows if home.exists() else 0
    early, large = "", small_disk(roomy, 2**29) if roomy else nullcontext()
    with small_disk(folder, spare) as enlarge, large:
        process = start(home)
        while process.poll() is None:
            time.sleep(0.5)
            if before and warehouse.read("from facts.products").num_rows < before:
                early = "the snapshot lost products"
        warehouse.close()
        told = log_of(home).read_text("utf-8")
        if process.returncode != 1 or FULL not in told:
            early = f"exit {process.returncode} without the sentence: {told[-600:]}"
        elif hit not in last_line(told, FULL):
            early = f"it was to hit {hit}"
        elif "Traceback" in told:
            early = "a traceback beside the sentence"
        enlarge()
        what = f"{spare:,} bytes left"
        return finish(home, ready.expected, what, last_line(told, FULL), early)


def full_checkpoint(ready: Ready, rng: random.Random) -> Tried:
    """No space for the checkpoints of a training; those before stay."""
    home = ready.copy(ready.begun)
    work = home / "var" / "artifacts" / ".work"
    return _filled(ready, home, work, rng.randint(0, 600_000), "")


def full_store(ready: Ready, rng: random.Random) -> Tried:
    """No space for the staging of an artifact, while checkpoints have theirs."""
    home = ready.copy(ready.begun)
    artifacts = home / "var" / "artifacts"
    spare = rng.randint(0, 70_000)
    return _filled(ready, home, artifacts, spare, "", roomy=artifacts / ".work")


def full_snapshot(ready: Ready, rng: random.Random) -> Tried:
    """Space for the rows, none for the copy that readers see."""
    home = ready.copy(ready.begun)
    folder = home / "var" / "warehouse"
    spare = rng.randint(2**20, (folder / "panacea.duckdb").stat().st_size - 2**18)
    return _filled(ready, home, folder, spare, "panacea.snapshot.partial")


def full_database(ready: Ready, rng: random.Random) -> Tried:
    """No space for the rows themselves."""
    home = ready.copy(ready.begun)
    return _filled(
        ready, home, home / "var" / "warehouse", rng.randint(0, 200_000), "panacea.duckdb"
    )


def full_everything(ready: Ready, rng: random.Random) -> Tried:
    """One disk for all, Dagster's own database as well, from nothing."""
    home = ready.fresh()
    return _filled(ready, home, home, rng.randint(2**20, 30 * 2**20), "")


# ---- two at once


def same_twice(ready: Ready, rng: random.Random) -> Tried:
    """Two runs of one problem at once."""
    home, pause = ready.fresh(), rng.uniform(0, 10)
    first = start(home)
    time.sleep(pause)
    second = _beside(home)
    codes = [first.wait(), second.wait()]
    told = "" if not any(codes) else _why(home)
    early = "" if not any(codes) or "held by" in told else f"exits {codes}: {told}"
    what = f"{pause:.1f} s apart, exits {codes[0]} and {codes[1]}"
    return finish(home, ready.expected, what, told, early)


def _beside(home: Path) -> subprocess.Popen[str]:
    """A second run in the same workspace, with a log of its own."""
    log = log_of(home)
    kept = log.with_suffix(".first")
    log.rename(kept)  # the first keeps writing to the file that it opened
    return start(home)


def _why(home: Path) -> str:
    texts = [log_of(home), log_of(home).with_suffix(".first")]
    return " | ".join(last_line(path.read_text("utf-8"), " failed:") for path in texts)


def two_problems(ready: Ready, rng: random.Random) -> Tried:
    """Two problems at once in one workspace."""
    home, pause = ready.fresh(), rng.uniform(0, 10)
    first = start(home)
    time.sleep(pause)
    second = start(home, problem=OTHER)
    codes = [first.wait(), second.wait()]
    told = log_of(home, OTHER if codes[1] else PROBLEM).read_text("utf-8")
    early = f"exits {codes}: {told[-600:]}" if any(codes) else ""
    what = f"{pause:.1f} s apart, exits {codes[0]} and {codes[1]}"
    return finish(home, ready.expected_two, what, "", early)


# ---- a flipped byte

READERS = {  # stage of the artifact → the selection that reads it
    "base_model": "responses",
    "reward_models": "response_rewards",
    "panacea_policy": "generations",
    "baseline_policies": "generations",
    "report": "report",
}


def flipped_byte(ready: Ready, rng: random.Random) -> Tried:
    """One bit of one byte of a random file of a random artifact; then a run that reads it."""
    home = ready.copy(ready.whole)
    products = warehouse_of(home).read("select key, stage from facts.products").to_pylist()
    stage_of = {p["key"]: p["stage"] for p in products}
    key = rng.choice(sorted(stored(home)))
    files = [f for f in (home / "var" / "artifacts" / key).rglob("*") if f.is_file()]
    target = rng.choice(sorted(files))
    content = bytearray(target.read_bytes())
    place = rng.randrange(len(content))
    content[place] ^= 1 << rng.randrange(8)
    target.chmod(0o644)
    target.write_bytes(content)
    name = target.relative_to(home / "var" / "artifacts" / key).as_posix()
    what = f"byte {place:,} of {name} of {stage_of[key]}"
    selection = READERS[stage_of[key]]
    force = ["--force"] if selection != "report" else []
    reading = run(home, "--select", selection, *force)
    told, early = last_line(reading.told, " failed:"), ""
    named = re.search(r"Delete the artifact \(the folder (\S+)\)", reading.told)
    if named:
        early = "" if name in told or "manifest.json" in told else f"names no file: {told}"
        shutil.rmtree(named[1])
    elif reading.code and f"--select {stage_of[key]}" not in reading.told:
        early = f"exit {reading.code} without a remedy: {reading.told[-600:]}"
    elif not reading.code and name not in ("manifest.json", "COMPLETE"):
        early = "nothing noticed it"
    ended = run(home)
    if ended.code:
        return Tried(what, told, False, [early, f"exit {ended.code}: {ended.told[-600:]}"])
    sealed = {k: at for k, at in stored(ready.whole).items() if k != key}
    return Tried(what, told, True, [early] * bool(early) + wrongs(home, ready.expected, {}, sealed))


def prepare(folder: Path) -> Ready:
    """Make what is compared with, once; later calls find it."""
    whole, begun, both = (folder / name for name in ("whole", "begun", "both"))
    facts = folder / "undisturbed.json"
    if not facts.exists():
        for home in (whole, begun, both):
            shutil.rmtree(home, ignore_errors=True)
        _must(begun, "--select", BEFORE_TRAINING)
        seconds, work = _must(whole)
        shutil.copytree(whole, both)
        _must(both, problem=OTHER)
        facts.write_text(json.dumps({"seconds": seconds, "work": work}))
    told = json.loads(facts.read_text())
    return Ready(folder, whole, begun, state_of(whole), state_of(both), **told)


def _must(home: Path, *arguments: str, problem: str = PROBLEM) -> tuple[float, float]:
    """Seconds by the clock and of CPU."""
    started = time.monotonic()
    process = start(home, *arguments, problem=problem)
    work = work_until(process)
    if process.returncode:
        told = log_of(home, problem).read_text("utf-8")
        raise SystemExit(f"the undisturbed run ended with {process.returncode}:\n{told}")
    return time.monotonic() - started, work
