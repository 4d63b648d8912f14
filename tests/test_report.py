"""Pictures stay small, and the page is one well-formed file in which no text can act."""

import base64
import re
import struct
from html.parser import HTMLParser
from itertools import product

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pytest

from orchestration.shown import picture
from panacea_lib.evaluation import preference_grid
from panacea_lib.report import (
    curves_picture,
    evaluation_pictures,
    front_picture,
    report_page,
    reward_models_picture,
)

METHODS = ["panacea", "panacea_dpo", "rewarded_soups", "reference", "optimum"]
VOID = {"meta", "img", "br", "hr", "link", "input"}
EVIL = '<script>alert("λ")</script> & \x00 <b>'


def front_rewards(m: int) -> pa.Table:
    rng, grid = np.random.default_rng(0), preference_grid(m)
    rows = []
    for method, judge in product(METHODS, ("gold", "proxy")):
        for point, weights in enumerate(grid):
            for i, weight in enumerate(weights):
                mean = 0.0 if method == "reference" else weight**0.5 + 0.1 * rng.normal()
                rows.append((method, judge, point, f"dimension_{i}", weight, mean, mean - 0.1))
    names = ["method", "judge", "point", "dimension", "weight", "reward", "reward_low"]
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    high = [row[5] + 0.1 for row in rows]
    return pa.table({k: list(v) for k, v in columns.items()} | {"reward_high": high})


def front_values(m: int) -> pa.Table:
    """Of every method but the optimum, as its values need no estimate."""
    rng = np.random.default_rng(1)
    rows = [
        {
            "method": method, "judge": judge, "point": point, "kl": kl, "kl_low": kl - 0.1,
            "kl_high": kl + 0.1, "value": share, "reference_value": 0.0, "optimal_value": 1.0,
        }
        for method, judge in product(METHODS[:-1], ("gold", "proxy"))
        for point in range(len(preference_grid(m)))
        for kl, share in [(0.0, 0.0) if method == "reference" else rng.uniform(0.5, 1.0, 2)]
    ]  # fmt: skip
    return pa.Table.from_pylist(rows)


def check_png(png: bytes, least_width: int) -> None:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(png) < 100_000
    assert struct.unpack(">I", png[16:20])[0] >= least_width


@pytest.mark.parametrize(
    ("m", "names"),
    [
        (2, ["front", "judges"]),
        (3, ["front", "triangle", "judges"]),
        (10, ["front", "profiles", "judges"]),
    ],
)
def test_an_evaluation_has_the_pictures_of_its_dimensions(m, names):
    dimensions = [f"dimension_{i}" for i in range(m)]
    drawn = evaluation_pictures(front_rewards(m), front_values(m), dimensions)
    assert [one.name for one in drawn] == names
    for one in drawn:
        check_png(one.png, least_width=400)
        entry = picture(one.png, one.caption)
        assert len(str(entry.value)) < 100_000, "Dagster keeps it in the event log"


def test_without_true_scores_no_judges_are_compared():
    rewards, values = (
        table.filter(pa.compute.equal(table["judge"], "proxy"))
        for table in (front_rewards(3), front_values(3))
    )
    drawn = evaluation_pictures(rewards, values, ["dimension_0", "dimension_1", "dimension_2"])
    assert [one.name for one in drawn] == ["front", "triangle"]


def test_the_same_front_gives_the_same_picture_and_no_front_none():
    table, names = front_rewards(2), ["dimension_0", "dimension_1"]
    gold = front_picture(table, names, "gold")
    assert gold == front_picture(table, names, "gold")
    assert gold != front_picture(table, names, "proxy")
    with pytest.raises(ValueError, match="no front judged by 'human'"):
        front_picture(table, names, "human")


def test_curves_and_reward_models_are_drawn():
    rows = [
        {"method": method, "step": step, "dimension": name, "metric": "loss", "value": 1 / step}
        for method in METHODS
        for name in ("", "helpfulness", "harmlessness")
        for step in range(1, 401)
    ]
    table = pa.Table.from_pylist(rows)
    check_png(curves_picture(table), least_width=400)
    check_png(curves_picture(table.slice(0, 1)), least_width=300)  # a run of one step
    with pytest.raises(ValueError, match="'reward'"):
        curves_picture(table, metric="reward")
    known = {"dimension": "helpfulness", "accuracy": 0.7, "accuracy_low": 0.6}
    known |= {"accuracy_high": 0.8, "majority": 0.5, "best_possible": 0.75}
    bare = {"dimension": "verbosity", "accuracy": 0.7, "majority": 0.5, "best_possible": None}
    check_png(reward_models_picture([known, bare]), least_width=300)


class _Reader(HTMLParser):
    """Fails on a tag that is not closed in its place; collects tags, attributes and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.tags, self.values, self.text = [], [], [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.values += [value for _, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert tag not in VOID and self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        assert tag in VOID
        self.handle_starttag(tag, attrs)

    def handle_data(self, data):
        self.text += data


def read(page: str) -> _Reader:
    reader = _Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


PNG = base64.b64decode("iVBORw0KGgo=")
FRONT = [
    {
        "preference": {"helpfulness": 0.3, EVIL: 0.7},
        "rewards": {"helpfulness": 1.25, EVIL: -0.5},
        "kl": 1.5,
        "prompt": "how do i ?",
        "response": EVIL,
    }
]


def page(**changes) -> str:
    plain = {
        "title": EVIL,
        "description": EVIL,
        "card": {EVIL: EVIL, "Make it again": "panacea materialize demo"},
        "leaderboard": [
            {
                "method": EVIL, "judge": "gold", "value_ratio": 0.93211, "value_ratio_low": 0.9,
                "value_ratio_high": 0.96, "sparsity": None, "kl": 1.5, "n": 5632, "tokens": 1,
            }
        ],
        "front": FRONT,
        "reward_models": [{"dimension": EVIL, "accuracy": 0.7, "best_possible": None, "n": 600}],
        "pictures": {EVIL: PNG},
        "queries": {EVIL: "select * from leaderboard where kl < 2"},
        "notes": [EVIL],
    }  # fmt: skip
    return report_page(**{**plain, **changes})


def test_nothing_a_model_wrote_can_act_on_the_page():
    text = page()
    reader = read(text)
    assert "script" not in reader.tags and "b" in reader.tags
    assert "<script" not in text and "\x00" not in text
    assert reader.text.count('<script>alert("λ")</script> & \ufffd <b>') >= 8
    # Self-contained: nothing is fetched.
    assert not re.search(r"https?://|url\(|@import", text)
    assert [v for v in reader.values if v.startswith("data:")] == [
        "data:image/png;base64,iVBORw0KGgo="
    ]


def test_the_page_tells_what_it_was_told():
    text = page()
    reader = read(text)
    assert "0.932" in text and "[0.900, 0.960]" in text and "5,632" in text
    assert "value ratio: the share of the attainable improvement" in reader.text
    assert "(0.3, 0.7)" in text and "1.250" in text and "-0.500" in text
    assert "tokens" not in reader.text  # columns nobody needs on a page stay out
    assert "kl &lt; 2" in text
    assert "prefers-color-scheme: dark" in text and "max-width: 40rem" in text


def test_empty_sections_are_left_out():
    text = page(front=[], reward_models=[], pictures={}, queries={}, notes=[], leaderboard=[])
    assert read(text).tags.count("h2") == 1
    assert "What each preference gets" not in text
