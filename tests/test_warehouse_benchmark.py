"""The rows that `benchmarks.warehouse` measures, a few: they fit the schema, and queries answer."""

from pathlib import Path

import duckdb
import pytest

from benchmarks.warehouse import ours, questions, theirs
from benchmarks.warehouse_rows import Sizes, Synthetic
from panacea_lib.warehouse import Warehouse
from panacea_lib.workspace import Workspace


@pytest.fixture(scope="module")
def products():
    return Synthetic(Workspace.current(), Sizes(labels=400, generations=700)).products()


OF_OTHERS = {  # of judges, people and champions, which the benchmark has not; tests/test_sql.py has
    "Do the annotators agree?",
    "Does the judge judge, or does it take the first?",
    "What did labelling cost?",
    "Who is champion?",
    "Why was the last policy not promoted?",
}


def test_every_documented_query_finds_something(products, tmp_path):
    warehouse = Warehouse(tmp_path / "panacea.duckdb")
    warehouse.save_products(products)
    assert all(warehouse.is_complete(product.key) for product, _ in products)
    empty = [heading for heading, sql in questions() if warehouse.read(sql).num_rows == 0]
    assert set(empty) == OF_OTHERS and len(questions()) > 12
    counts = warehouse.read(
        "select count(*) as answers, count(distinct generation_id) as ids, "
        "avg(length(response)) as length from sample_responses"
    ).to_pylist()[0]
    assert counts["answers"] == counts["ids"] >= 700 and 60 < counts["length"] < 110


def test_both_sides_of_a_pair_store_the_same_rows(products, tmp_path: Path):
    product, tables = next(saved for saved in products if saved[0].stage == "generations")
    found = []
    for side in (ours, theirs):
        path = tmp_path / f"{side.__name__}.duckdb"
        for _ in range(2):  # each call begins anew
            side(path, product, "generations", tables["generations"])()
        with duckdb.connect(path, read_only=True) as connection:
            found.append(connection.sql("from facts.generations order by all").fetchall())
    assert found[0] == found[1] and len(found[0]) == tables["generations"].num_rows
