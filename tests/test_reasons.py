"""The sentence that says why a product is made anew."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panacea_lib.plan import key_of
from panacea_lib.reasons import why

KEYS = ["0" * 32, "1" * 32]
CONTENT = {
    "stage": "panacea_policy",
    "version": 2,
    "seed": 0,
    "libraries": {"trl": "1.16.0"},
    "base": [KEYS[0], "none"],
    "labels": {"helpfulness": [KEYS[0]], "harmlessness": [KEYS[0]]},
    "training": {"steps": 400, "method": "reward_distillation"},
}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"seed": 1}, "seed: 0 → 1"),
        ({"version": 3}, "version of the stage's code: 2 → 3"),
        ({"libraries": {"trl": "1.17.0"}}, "trl: 1.16.0 → 1.17.0"),
        ({"base": [KEYS[1], "none"]}, "base changed"),
        ({"base": [KEYS[0], "nf4"]}, "base: none → nf4"),
        (
            {"labels": {"helpfulness": [KEYS[1]], "harmlessness": [KEYS[0]]}},
            "labels.helpfulness changed",
        ),
        (
            {"labels": {"helpfulness": KEYS, "harmlessness": [KEYS[0]]}},
            "labels.helpfulness is new",
        ),
        ({"labels": {"helpfulness": [KEYS[0]]}}, "labels.harmlessness is gone"),
        (
            {"training": {"steps": 500, "method": "dpo"}},
            "training.steps: 400 → 500; training.method: reward_distillation → dpo",
        ),
        ({"beta": 0.5}, "beta is new: 0.5"),
        ({"files": {"unlabelled": [KEYS[0], "csv"], "pairs": {"rows": 3}}}, "files is new"),
    ],
)
def test_what_changed_is_named(change, told):
    assert why(CONTENT | change, CONTENT) == told


def test_a_section_that_went_is_named_once():
    before = CONTENT | {"files": {"unlabelled": [KEYS[0], "csv"], "pairs": {"rows": 3}}}
    assert why(CONTENT, before) == "files is gone"


def test_a_tuple_is_the_list_that_it_was_stored_as():
    assert why(CONTENT | {"base": (KEYS[0], "none")}, CONTENT).startswith("nothing")


def test_a_long_list_of_changes_is_cut():
    new, old = ({"training": {f"n{i}": i + j for i in range(9)}} for j in (1, 0))
    assert why(new, old).endswith("n5: 5 → 6; and 3 more")


# Nothing can differ within an empty list or mapping, and contents have none that come and go.
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text("ab", max_size=3),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3)
        | st.dictionaries(st.text("xyz", min_size=1), inner, min_size=1)
    ),
    max_leaves=8,
)
CONTENTS = st.dictionaries(st.text("pqr", min_size=1, max_size=2), VALUES, max_size=4)


@given(CONTENTS, CONTENTS)
def test_no_change_is_told_just_where_keys_are_equal(new, old):
    said_nothing = why(new, old).startswith("nothing that it follows from")
    assert said_nothing == (key_of(new) == key_of(old))
