"""Several processes and one warehouse: they take turns, die in the middle, and read meanwhile."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import duckdb
import pytest
from small_warehouse import product, prompts, shown

from panacea_lib.warehouse import Warehouse, WarehouseBusyError
from panacea_lib.warehouse import database as database_module

PRELUDE = """
import os, sys, time
from pathlib import Path
import pyarrow as pa
from panacea_lib.warehouse import Product, Warehouse, database
warehouse = Warehouse(Path(sys.argv[1]))
"""


@pytest.fixture
def warehouse(tmp_path) -> Warehouse:
    return Warehouse(tmp_path / "panacea.duckdb", lock_timeout=20)


def process(code: str, path: Path) -> subprocess.Popen:
    """Another process on the same warehouse; the first line it prints says it is under way."""
    arguments = [sys.executable, "-c", PRELUDE + code, str(path)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def test_a_second_process_waits_for_its_turn(warehouse):
    code = """
with warehouse.writer("slow writer") as connection:
    print("in", flush=True)
    time.sleep(1)
    warehouse.replace_rows(connection, "prompts", "a1", pa.table(
        {"prompt_id": ["1"], "split": ["train"], "text": ["first"]}))
"""
    other = process(code, warehouse.path)
    assert other.stdout.readline() == "in\n"
    started = time.monotonic()
    warehouse.save_product(product("a2"), prompts("second"))
    assert other.wait() == 0 and time.monotonic() - started > 0.5
    assert warehouse.read("select text from facts.prompts order by 1")["text"].to_pylist() == [
        "first", "second",
    ]  # fmt: skip


def test_a_wait_that_is_too_long_names_the_holder(warehouse):
    code = """
with warehouse.writer("responses of demo") as connection:
    print("in", flush=True)
    time.sleep(60)
"""
    other = process(code, warehouse.path)
    try:
        assert other.stdout.readline() == "in\n"
        impatient = Warehouse(warehouse.path, lock_timeout=0.3)
        with pytest.raises(WarehouseBusyError) as caught:
            impatient.save_product(product("a1"), prompts("x"))
        message = str(caught.value)
        assert "'responses of demo'" in message and f"pid {other.pid}" in message
        assert "since 20" in message
    finally:
        other.kill()
        other.wait()
    impatient.save_product(product("a1"), prompts("x"))  # the lock died with its holder
    assert shown(warehouse) == ["x"]


def test_a_database_open_in_a_shell_is_named(warehouse):
    warehouse.save_product(product("a1"), prompts("x"))
    code = """
import duckdb
connection = duckdb.connect(sys.argv[1])
print("in", flush=True)
time.sleep(60)
"""
    shell = process(code, warehouse.path)
    try:
        assert shell.stdout.readline() == "in\n"
        with pytest.raises(WarehouseBusyError, match=f"PID {shell.pid}"):
            Warehouse(warehouse.path, lock_timeout=0.3).save_product(product("a1"), prompts("y"))
        assert shown(warehouse) == ["x"], "readers do not care"
    finally:
        shell.kill()
        shell.wait()


def test_threads_of_one_process_take_turns(warehouse):
    def save(number: int) -> None:
        warehouse.save_product(product(f"a{number}", part=str(number)), prompts(f"text {number}"))

    threads = [threading.Thread(target=save, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(shown(warehouse)) == [f"text {number}" for number in range(4)]


def test_kill_9_in_the_middle_of_a_write_changes_nothing(warehouse):
    warehouse.save_product(product("a1"), prompts("kept"))
    before = warehouse.snapshot.read_bytes()
    code = """
with warehouse.writer("doomed") as connection:
    texts = [str(i) for i in range(300_000)]
    rows = pa.table({"prompt_id": texts, "split": texts, "text": texts})
    warehouse.replace_rows(connection, "prompts", "a1", rows)
    print("in", flush=True)
    time.sleep(60)
"""
    other = process(code, warehouse.path)
    assert other.stdout.readline() == "in\n"
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    assert warehouse.snapshot.read_bytes() == before and shown(warehouse) == ["kept"]
    assert warehouse.is_complete("a1")
    warehouse.save_product(product("a2"), prompts("next"))
    assert warehouse.rows("prompts", "a1")["text"].to_pylist() == ["kept"]


@pytest.mark.parametrize("died", ["before the checkpoint", "before the snapshot"])
def test_what_was_committed_before_a_crash_is_published_not_made_again(warehouse, died):
    warehouse.save_product(product("a1"), prompts("old"))
    code = """
rows = pa.table({"prompt_id": ["1"], "split": ["train"], "text": ["new"]})
product = Product("a2", "prompts", "", "demo", "library", 0.5, 7)
"""
    code += {
        "before the checkpoint": """
import duckdb
class Dying:
    def __init__(self, real): self.real = real
    def __getattr__(self, name): return getattr(self.real, name)
    def execute(self, sql, *rest):
        return os._exit(9) if sql == "checkpoint" else self.real.execute(sql, *rest)
connect = database.connect_to_write
database.connect_to_write = lambda *arguments: Dying(connect(*arguments))
""",
        "before the snapshot": "database.publish_snapshot = lambda path: os._exit(9)\n",
    }[died]
    other = process(code + "warehouse.save_product(product, {'prompts': rows})", warehouse.path)
    assert other.wait() == 9
    assert shown(warehouse) == ["old"], "readers keep the last whole snapshot"
    assert warehouse.is_complete("a2")
    assert shown(warehouse) == ["new"]


COMMITS = 12
WRITING = f"""
def save(key, version, last=False):
    count = 100 + 37 * version % 50  # a half written product has the wrong number of rows
    texts, more = [str(version)] * count, [str(version)] * (2 * count)
    tables = {{
        "prompts": pa.table({{"prompt_id": texts, "split": texts, "text": texts}}),
        "responses": pa.table(
            {{"response_id": more, "prompt_id": more, "source": more, "text": more}}),
    }}
    details = {{"version": version, "last": last}}
    warehouse.save_product(Product(key, "prompts", key, "demo", "r", 0, 0, details), tables)

for version in range({COMMITS}):
    save("replaced", version, last=version == {COMMITS} - 1)
    if version % 4 == 0:
        save(f"added{{version}}", version)
    time.sleep(0.1)  # longer than a reader waits
"""
READING = """
import json
import duckdb

QUESTION = '''
select p.key, p.row_counts, p.details, a.n, a.first, a.last, b.n, b.first, b.last
from facts.products p
left join (select key, count(*) as n, min(text) as first, max(text) as last
           from facts.prompts group by key) a using (key)
left join (select key, count(*) as n, min(text) as first, max(text) as last
           from facts.responses group by key) b using (key)
'''

def ask():
    if HOW == "duckdb alone":
        with duckdb.connect(str(warehouse.snapshot), read_only=True) as connection:
            return connection.execute(QUESTION).fetchall()
    answer = warehouse.read(QUESTION)
    return list(zip(*(column.to_pylist() for column in answer.columns)))

print("in", flush=True)
finished, seen, most = False, set(), 0
while not finished:
    products = ask()
    assert len(products) >= most, "what was published stays"
    most = len(products)
    for key, row_counts, details, *found in products:
        told, details = json.loads(row_counts), json.loads(details)
        version = str(details["version"])
        whole = [told["prompts"], version, version, told["responses"], version, version]
        assert found == whole, (found, whole)
        if key == "replaced":
            seen.add(version)
        finished = finished or details["last"]
    time.sleep(0.05)  # or the writer hardly gets a turn on a small machine
print(len(seen), flush=True)
"""


@pytest.mark.slow
def test_eight_readers_see_whole_products_while_a_writer_works(warehouse):
    """No reader fails, and none ever sees a part of a product, in either of its tables."""
    first = "save('replaced', 0)\n"
    assert process(WRITING.split("for version")[0] + first, warehouse.path).wait() == 0
    ways = ["warehouse"] * 7 + ["duckdb alone"]
    readers = [process(f"HOW = {how!r}\n{READING}", warehouse.path) for how in ways]
    try:
        assert [reader.stdout.readline() for reader in readers] == ["in\n"] * 8
        writer = process(WRITING, warehouse.path)
        assert writer.wait() == 0
        outputs = [reader.communicate(timeout=60)[0] for reader in readers]
    finally:
        for reader in readers:
            reader.kill()
            reader.wait()
    assert [reader.returncode for reader in readers] == [0] * 8
    assert all(int(output) > 2 for output in outputs), "they read between the commits"


def test_a_read_sees_the_newest_snapshot_while_an_older_one_is_open(warehouse):
    warehouse.save_product(product("a1"), prompts("old"))
    slow = database_module.connect_to_read(warehouse.snapshot)
    alone = duckdb.connect(warehouse.snapshot, read_only=True)  # a user's notebook
    warehouse.save_product(product("a1"), prompts("new"))
    assert shown(warehouse) == ["new"]
    for connection in (slow, alone):
        assert connection.execute("select text from facts.prompts").fetchall() == [("old",)]
        connection.close()
