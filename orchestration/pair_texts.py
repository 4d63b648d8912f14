"""Pairs with their texts, as stages and commands read them; nothing of Dagster."""

import pyarrow as pa

from panacea_lib.errors import MissingUpstreamError
from panacea_lib.warehouse import Warehouse

PAIR_TEXTS = """
select pairs.pair_id, pairs.prompt_id, pairs.split, prompts.text as prompt,
    a.text as response_a, b.text as response_b,
    pairs.response_a as id_a, pairs.response_b as id_b
from facts.pairs
join facts.prompts on prompts.key = $prompts and prompts.prompt_id = pairs.prompt_id
join facts.responses a on a.key = $responses and a.response_id = pairs.response_a
join facts.responses b on b.key = $responses and b.response_id = pairs.response_b
where pairs.key = $pairs
order by pairs.rowid
"""
"""Parameters: the keys of the stages prompts, responses and pairs."""

_STAGES = ["prompts", "responses", "pairs"]
_KEYS = "select stage, key from facts.current where problem = ? and list_contains(?, stage)"
_LABELLED = """
select pair_id from facts.preference_labels
join facts.current using (key)
where problem = ? and stage = 'preference_labels' and dimension = ? and label is not null
"""


def current_pairs(warehouse: Warehouse, problem: str) -> pa.Table:
    """The pairs that the problem shows today: pair_id, prompt, response_a, response_b and more.

    MissingUpstreamError where there are none yet.
    """
    keys: dict[str, str] = {}
    if warehouse.snapshot.exists():
        rows = warehouse.read(_KEYS, [problem, _STAGES]).to_pylist()
        keys = {row["stage"]: row["key"] for row in rows}
    if len(keys) < len(_STAGES):
        raise MissingUpstreamError(
            f"{problem} has no pairs yet: run `panacea materialize {problem} --select "
            "prompts,base_model,responses,pairs`"
        )
    return warehouse.read(PAIR_TEXTS, keys)


def labelled_pairs(warehouse: Warehouse, problem: str, dimension: str) -> set[str]:
    """The pairs that have a label on the dimension, of whatever source."""
    return set(warehouse.read(_LABELLED, [problem, dimension])["pair_id"].to_pylist())
