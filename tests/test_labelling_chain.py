"""Labels of every source through the real chain: asked once, resolved by trust, shown in SQL."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import TESTS, Finished, panacea
from judge_gateway import Gateway, running_gateway

PROBLEM = """
name: labelled
extends: tiny
dimensions:
  - name: helpfulness
    description: does what was asked
  - name: harmlessness
    description: does no harm
  - name: conciseness
    description: says it shortly
data: {{kind: world, pairs: 60}}
labels:
  helpfulness: [{{kind: data}}, {{kind: judge, judge: local, overlap: 7}}]
  harmlessness: [{{kind: judge, judge: local, limit: 20}}]
  conciseness: [{{kind: conciseness, tokens: 8}}, {{kind: length, unit: characters}}]
judges:
  local: {{endpoint: "{endpoint}", model: honest, price: {{input: 1.0, output: 2.0}}}}
"""
PINNED = """
name: pinned
extends: tiny
pairs: {{per_prompt: 3, prompts: 12, count: 20, max_new_tokens: 24, policy: {policy}}}
"""
LABELS = "prompts,base_model,responses,pairs,annotations,preference_labels"


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with running_gateway() as running:
        yield running


@pytest.fixture
def problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of problems of the test's own, beside `tiny`."""
    shutil.copytree(TESTS / "problems", tmp_path / "problems")
    monkeypatch.setenv("PANACEA_PROBLEMS", str(tmp_path / "problems"))
    return tmp_path / "problems"


def ask(sql: str) -> list[dict[str, Any]]:
    found = panacea("sql", "--json", sql)
    assert found.code == 0, found.err
    return json.loads(found.out)


def good(finished: Finished) -> str:
    assert finished.code == 0, finished.err
    return finished.out


@pytest.mark.slow
def test_every_source_labels_and_nothing_is_asked_twice(chain, gateway, problems):
    (problems / "labelled.yaml").write_text(PROBLEM.format(endpoint=gateway.endpoint))
    good(panacea("materialize", "labelled", "--select", "prompts,base_model,responses,pairs"))
    told = good(panacea("label", "labelled", "--dry-run"))
    assert "54 requests would be sent" in told and "nothing was asked" in told
    assert not gateway.counts()

    good(panacea("label", "labelled"))
    asked = gateway.counts()
    assert len(asked) == 2 * 7 + 2 * 20 and set(asked.values()) == {1}
    sources = {
        (row["dimension"], row["source"], row["annotator"]): row["pairs"]
        for row in ask("from label_sources where problem = 'labelled'")
    }
    assert sources == {
        ("helpfulness", "world", "3 simulated"): 60,
        ("helpfulness", "judge", "local"): 7,
        ("harmlessness", "judge", "local"): 20,
        ("conciseness", "rule", "conciseness"): 60,
        ("conciseness", "rule", "length"): 60,
    }
    quality = {
        row["dimension"]: row for row in ask("from label_quality where problem = 'labelled'")
    }
    assert {name: row["labels"] for name, row in quality.items()} == {
        "helpfulness": 60,
        "harmlessness": 20,
        "conciseness": 60,
    }
    assert quality["helpfulness"]["sources"] == {"world": 60}
    bias = ask("from position_bias where problem = 'labelled'")
    assert [(row["first_preferred"], row["consistent"]) for row in bias] == [(0.5, 1.0)] * 2
    (agreement,) = ask(
        "from source_agreement where problem = 'labelled' and dimension = 'helpfulness'"
    )
    assert agreement["pairs"] == 7
    costs = ask("from label_costs where problem = 'labelled'")
    assert [(row["requests"], row["tokens"]) for row in costs] == [(40, 4400), (14, 1540)]
    assert costs[0]["cost"] == pytest.approx((4000 * 1 + 400 * 2) / 1e6)

    good(panacea("materialize", "labelled", "--select", LABELS, "--force"))
    assert gateway.counts() == asked, "the cache answers"


@pytest.mark.slow
def test_pairs_are_generated_by_a_pinned_policy(chain, problems):
    (policy,) = ask("select key from runs where problem = 'tiny' and stage = 'panacea_policy'")
    pinned = problems / "pinned.yaml"
    pinned.write_text(PINNED.format(policy=policy["key"]))
    good(panacea("materialize", "pinned", "--select", LABELS))
    (pairs,) = ask(
        "select count(*) as pairs, count(distinct r.source) as sources, min(r.source) as source "
        "from facts.pairs p join facts.current c on c.key = p.key and c.problem = 'pinned' "
        "join facts.current o on o.problem = 'pinned' and o.stage = 'responses' "
        "join facts.responses r on r.key = o.key and r.response_id = p.response_a"
    )
    assert pairs == {"pairs": 20, "sources": 1, "source": "generated"}

    pinned.write_text(PINNED.format(policy="0" * 32))
    refused = panacea("materialize", "pinned", "--select", LABELS)
    assert refused.code == 2 and "pairs.policy" in refused.err and str(pinned) in refused.err
