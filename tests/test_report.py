"""Pictures stay small, and the page is one well-formed file in which no text can act."""

import base64
import hashlib
import json
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
    calibration_picture,
    correlations_picture,
    curves_picture,
    evaluation_pictures,
    front_picture,
    report_page,
    reward_models_picture,
    slider_data,
)
from panacea_lib.report.fronts import charged, fronts_of

METHODS = ["panacea", "panacea_dpo", "rewarded_soups", "reference", "optimum"]
VOID = {"meta", "img", "br", "hr", "link", "input"}
EVIL = '</script><script>alert("λ")</script> & \x00 <b> <!--'


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
    rng = np.random.default_rng(1)
    rows = [
        {
            "method": method, "judge": judge, "point": point, "kl": kl, "kl_low": kl - 0.1,
            "kl_high": kl + 0.1, "value": share, "reference_value": 0.0, "optimal_value": 1.0,
        }
        for method, judge in product(METHODS, ("gold", "proxy"))
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
        (2, ["front", "charged_front", "judges"]),
        (3, ["front", "charged_front", "triangle", "judges"]),
        (10, ["front", "profiles", "judges"]),
    ],
)
def test_an_evaluation_has_the_pictures_of_its_dimensions(m, names):
    dimensions = [f"dimension_{i}" for i in range(m)]
    drawn = evaluation_pictures(front_rewards(m), front_values(m), dimensions, 0.5)
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
    names = ["dimension_0", "dimension_1", "dimension_2"]
    drawn = evaluation_pictures(rewards, values, names, 0.5)
    assert [one.name for one in drawn] == ["front", "charged_front", "triangle"]


def test_the_charged_front_pays_for_drift():
    rewards, values = front_rewards(2), front_values(2)
    paid = charged(rewards, values, beta=0.5).to_pylist()
    kl = {(r["method"], r["judge"], r["point"]): r["kl"] for r in values.to_pylist()}
    for before, after in zip(rewards.to_pylist(), paid, strict=True):
        price = 0.5 * kl[before["method"], before["judge"], before["point"]]
        assert after["reward"] == pytest.approx(before["reward"] - price)
        assert after["reward_low"] == after["reward_high"] == after["reward"]


def test_an_optimum_that_is_not_known_everywhere_is_not_drawn():
    rewards = front_rewards(2)
    known = pa.compute.or_(
        pa.compute.not_equal(rewards["method"], "optimum"),
        pa.compute.not_equal(rewards["point"], 3),
    )
    assert "optimum" in fronts_of(rewards, ["dimension_0", "dimension_1"], "proxy")
    partly = fronts_of(rewards.filter(known), ["dimension_0", "dimension_1"], "proxy")
    assert "optimum" not in partly and "panacea" in partly


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
    silent = {"dimension": "ties_only", "accuracy": None, "majority": None}
    known["length_only"] = 0.6
    check_png(reward_models_picture([known, bare, silent]), least_width=300)


@pytest.mark.parametrize("m", [1, 2, 10])
def test_calibration_and_correlations_are_drawn(m):
    names = [f"dimension_{i}" for i in range(m)]
    bins = [
        {"dimension": name, "scaled": scaled, "bin": i, "n": 50, "predicted": 0.5 + i / 20,
         "observed": 0.5 + i / 25, "low": 0.4 + i / 25, "high": 0.6 + i / 25}
        for name in names for scaled in (False, True) for i in range(10)
    ]  # fmt: skip
    check_png(calibration_picture(bins), least_width=200)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    rows = [{"dimension_a": a, "dimension_b": b, "correlation": -0.5} for a, b in pairs]
    if rows:
        rows[0]["correlation"] = None  # one of the two never varies
    check_png(correlations_picture(rows, names), least_width=150)
    with pytest.raises(ValueError, match="no held-out pair"):
        calibration_picture([])


class _Reader(HTMLParser):
    """Fails on a tag that is not closed in its place; collects tags, attributes and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.tags, self.values, self.text = [], [], [], ""
        self.scripts = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.values += [value for _, value in attrs]
        if tag == "script":
            self.scripts.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert tag not in VOID and self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        assert tag in VOID
        self.handle_starttag(tag, attrs)

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        else:
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
COMPARISON = {"metric": "value_ratio", "difference": 0.118, "low": 0.103, "high": 0.131}
COMPARISONS = [
    {"method": "panacea", "other": EVIL, "verdict": "better", **COMPARISON},
    {
        "method": "panacea", "other": "mod", "metric": "value_ratio", "difference": -0.1,
        "low": -0.2, "high": -0.05, "verdict": "worse",
    },
    {
        "method": "mod", "other": "panacea_dpo", "metric": "value_ratio", "difference": 0.0,
        "low": -0.01, "high": 0.02, "verdict": "no difference shown",
    },
    {
        "method": "mod", "other": "panacea", "metric": "value_ratio", "difference": 0.1,
        "low": 0.05, "high": 0.2, "verdict": "better",
    },
    {"method": "panacea", "other": "mod", "verdict": "better", **COMPARISON, "metric": "kl"},
]  # fmt: skip


def answers(m: int) -> list[dict]:
    """Two prompts; what each learned method says tells the method, the point and an attack."""
    points = len(preference_grid(m))
    return [
        {
            "prompt_id": f"q{k}", "prompt": f"prompt {k} {EVIL}", "method": method, "point": point,
            "response": f"{method} at {point} to {k} {EVIL}",
        }
        for k in range(2)
        for method in ("panacea", "panacea_dpo", "reference")
        for point in range(1 if method == "reference" else points)
    ]  # fmt: skip


def slider_of(m: int, attack: str = EVIL) -> dict:
    """What a slider over m dimensions shows; the last dimension's name is an attack."""
    names = [f"dimension_{i}" for i in range(m)]
    table = front_rewards(m)
    renamed = [attack if name == names[-1] else name for name in table["dimension"].to_pylist()]
    table = table.set_column(table.column_names.index("dimension"), "dimension", [renamed])
    return slider_data(table, front_values(m), [*names[:-1], attack], answers(m))


def page(**changes) -> str:
    plain = {
        "title": EVIL,
        "description": EVIL,
        "card": {EVIL: EVIL, "Make it again": "panacea materialize demo"},
        "leaderboard": [
            {
                "method": EVIL, "judge": "gold", "value_ratio": 0.93211, "value_ratio_low": 0.9,
                "value_ratio_high": 0.96, "sparsity": None, "kl": 1.5, "n": 5632, "tokens": 1,
                "igd_plus": 0.05, "adapters": 1, "created_at": "today",
            }
        ],
        "front": FRONT,
        "reward_models": [{"dimension": EVIL, "accuracy": 0.7, "best_possible": None, "n": 600}],
        "pictures": {EVIL: PNG},
        "queries": {EVIL: "select * from leaderboard where kl < 2"},
        "notes": [EVIL],
        "comparisons": COMPARISONS,
        "slider": slider_of(2),
    }  # fmt: skip
    return report_page(**{**plain, **changes})


@pytest.mark.parametrize("m", [2, 3, 10])
def test_nothing_a_model_wrote_can_act_on_the_page(m):
    text = page(slider=slider_of(m))
    reader = read(text)
    assert len(reader.scripts) == 2, "the data and our own script"
    assert "alert" not in reader.scripts[1] and "innerHTML" not in reader.scripts[1]
    assert "<script>alert" not in text and "\x00" not in text and "<!--" not in text
    assert reader.text.count('</script><script>alert("λ")</script> & \ufffd <b> <!--') >= 12
    # Self-contained: nothing is fetched.
    without = text.replace("http://www.w3.org/2000/svg", "")  # a name that is never asked for
    assert not re.search(r"https?://|url\(|@import|fetch\(|XMLHttp", without)
    assert [v for v in reader.values if v.startswith("data:")] == [
        "data:image/png;base64,iVBORw0KGgo="
    ]


def test_the_browser_is_told_to_run_our_script_alone_and_to_fetch_nothing():
    text = page()
    reader = read(text)
    (rules,) = [value for value in reader.values if value.startswith("default-src")]
    digest = base64.b64encode(hashlib.sha256(reader.scripts[1].encode()).digest()).decode()
    assert rules.startswith("default-src 'none'; img-src data:; ")
    assert f"script-src 'sha256-{digest}';" in rules and "unsafe" not in rules
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}';" in rules
    assert not re.search(r"<[^>]+ (style|on\w+)=", text), "they would be refused"


@pytest.mark.parametrize("m", [2, 3, 10])
def test_the_slider_holds_what_was_measured(m):
    table, points = front_rewards(m), len(preference_grid(m))
    reader = read(page(slider=slider_of(m)))
    data = json.loads(reader.scripts[0])
    assert data["methods"] == ["panacea", "panacea_dpo"], "soups have no answers here"
    assert np.allclose(data["grid"], preference_grid(m), atol=1e-4)
    assert len(data["dimensions"]) == m and "alert" in data["dimensions"][-1]
    row = table.filter(
        (pa.compute.field("method") == "panacea_dpo")
        & (pa.compute.field("judge") == "gold")
        & (pa.compute.field("point") == points - 1)
        & (pa.compute.field("dimension") == "dimension_0")
    ).to_pylist()[0]
    expected = [row["reward"], row["reward_low"], row["reward_high"]]
    last = data["fronts"][1][-1]
    assert last["rewards"][0] == pytest.approx(expected, abs=1e-4)
    assert last["share"] is not None and len(last["kl"]) == 3
    told = data["prompts"][1]
    assert told["answers"][1][-1].startswith(f"panacea_dpo at {points - 1} to 1")
    assert told["reference"].startswith("reference at 0 to 1")
    assert all(len(one) == points for one in told["answers"])
    # Every input has a label of its own, and the page says what it picks.
    inputs = [v for v in reader.values if v and v.startswith("slider-weight-")]
    assert len(set(inputs)) == (1 if m == 2 else m) and len(inputs) >= 2 * len(set(inputs))
    assert "Nearest evaluated λ" in reader.text and "needs JavaScript" in reader.text


def test_long_answers_are_clipped_and_a_missing_one_is_none():
    rows = [r for r in answers(2) if (r["method"], r["point"]) != ("panacea_dpo", 3)]
    rows[0]["response"] = "a" * 10_000
    names = ["dimension_0", "dimension_1"]
    data = slider_data(front_rewards(2), front_values(2), names, rows)
    assert len(data["prompts"][0]["answers"][0][0]) == 700
    assert data["prompts"][0]["answers"][1][3] is None
    with pytest.raises(ValueError, match="no learned method"):
        slider_data(front_rewards(2), front_values(2), names, [])


def test_the_page_tells_what_it_was_told():
    text = page()
    reader = read(text)
    assert "0.932" in text and "[0.900, 0.960]" in text and "5,632" in text
    assert "value ratio: the share of the attainable improvement" in reader.text
    assert "IGD+: mean distance, counting only shortfall" in reader.text
    assert "adapters: how many" in reader.text
    assert "(0.3, 0.7)" in text and "1.250" in text and "-0.500" in text
    assert "sparsity:" not in reader.text, "a column without a figure stays out"
    assert "created" not in reader.text, "and so does one that nobody needs on a page"
    assert "kl &lt; 2" in text
    assert "prefers-color-scheme: dark" in text and "max-width: 46rem" in text


def test_the_headline_is_panacea_s_value_ratio():
    row = {"method": "panacea", "judge": "gold", "value_ratio": 0.93211, "n": 1}
    row |= {"value_ratio_low": 0.9, "value_ratio_high": 0.96}
    assert "0.932 of the attainable improvement" in read(page(leaderboard=[row])).text
    estimated = read(page(leaderboard=[row | {"judge": "proxy"}])).text
    assert "by an estimated ruler that reads high" in estimated
    assert "attainable improvement over the base" not in read(page()).text


def test_comparisons_are_sentences():
    told = read(page()).text
    assert f"beats {EVIL}: value ratio +0.118 [0.103, 0.131]".replace("\x00", "\ufffd") in told
    assert "mod beats panacea: value ratio +0.100 [0.050, 0.200]" in told
    assert "−0.100" not in told, "a pair is told once"
    assert "mod and panacea_dpo: no difference shown, value ratio +0.000 [−0.010, 0.020]" in told
    assert "KLbetter+0.118[0.103, 0.131]" in told.replace("\n", "")


def test_empty_sections_are_left_out():
    nothing = {"front": [], "reward_models": [], "pictures": {}, "queries": {}, "notes": []}
    text = page(**nothing, leaderboard=[], comparisons=[], slider=None)
    reader = read(text)
    assert reader.tags.count("h2") == 1 and reader.scripts == []
    assert "What each preference gets" not in text
