"""Rules that label pairs: golden values, laws, and what a bad pattern is told."""

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from panacea_lib.labelling.rules import rule_annotations
from panacea_lib.labelling.scores import label_of_scores
from panacea_lib.problem_files import load_problem
from panacea_lib.problem_labelling import Conciseness, Length, Matches, Readability, Rule
from panacea_lib.records import AnnotationRecord, arrow_schema

# "x y" → x, ␣, y would be fair too: what matters is that somebody else counts.
_words = Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
_words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # pyright: ignore
TOKENIZER = PreTrainedTokenizerFast(tokenizer_object=_words, unk_token="<unk>")

RULES = [
    Conciseness(kind="conciseness", tokens=3),
    Length(kind="length"),
    Length(kind="length", unit="characters", prefer="longer"),
    Length(kind="length", unit="tokens", temperature=4.0),
    Matches(kind="matches", pattern=r"(?i)\bsorry\b"),
    Matches(kind="matches", pattern=r"\p{Lu}", prefer="fewer", temperature=0.5),
    Readability(kind="readability"),
    Readability(kind="readability", prefer="harder", temperature=2.0),
]
text = st.text(alphabet=st.characters(codec="utf-8"), max_size=40) | st.sampled_from(
    [
        "Sorry, no.",
        "One. Two! Three?",
        "短い文です。次の文。",
        "- a\r\n- b\r\n",
        "3.14 e.g., x",
        " ",
        "",
    ]
)


def pairs(*texts: tuple[str, str]) -> pa.Table:
    a, b = zip(*texts, strict=True)
    ids = [f"p{i}" for i in range(len(texts))]
    return pa.table({"pair_id": ids, "prompt": ["?"] * len(ids), "response_a": a, "response_b": b})


def scores(rule: Rule, *texts: str) -> list[float]:
    table = rule_annotations(rule, "style", pairs(*((t, "") for t in texts)), TOKENIZER)
    return table["score_a"].to_pylist()


def test_a_row_per_pair_says_who_said_what():
    table = rule_annotations(RULES[1], "brevity", pairs(("a b", "a"), ("a", "b"), ("", "a")))
    assert table.schema == arrow_schema(AnnotationRecord)
    assert table["pair_id"].to_pylist() == ["p0", "p1", "p2"]
    assert table["label"].to_pylist() == [0.0, 0.5, 1.0]
    first = table.slice(0, 1).to_pylist()[0]
    assert first["dimension"] == "brevity"
    assert (first["source"], first["annotator"], first["status"]) == ("rule", "length", "ok")
    assert (first["score_a"], first["score_b"]) == (-2, -1), "the higher score is preferred"
    assert first["shown_first"] is None and first["reason"] is None


def test_conciseness_is_the_papers():
    rule = Conciseness(kind="conciseness")
    assert scores(rule, "", "w " * 50, "w " * 75, "w " * 250) == [4, 4, 3.5, 0]
    assert scores(rule, "w " * 51)[0] == pytest.approx(4 - 1 / 50), "continuous at 50"


def test_characters_words_and_tokens():
    texts = ["", "one two", " one -- two ", "naïve 👍🏽", "a\r\nb", "a\u00a0b\u3000c\x0bd"]
    longer = {"kind": "length", "prefer": "longer"}
    assert scores(Length(**longer, unit="characters"), *texts) == [0, 7, 12, 8, 3, 7]
    assert scores(Length(**longer, unit="words"), *texts) == [0, 2, 2, 1, 2, 4]
    assert scores(Length(**longer, unit="tokens"), *texts) == [0, 2, 3, 2, 2, 4]


def test_matches_are_counted_without_overlap():
    assert scores(Matches(kind="matches", pattern="aa"), "aaaa a", "", "baab") == [2, 0, 1]
    lines = Matches(kind="matches", pattern=r"(?m)^- .*$", prefer="fewer")
    assert scores(lines, "- a\r\n- b\r\n", "- a\n- b", "a - b") == [-2, -2, 0]
    assert scores(Matches(kind="matches", pattern="it's (a|b)"), "it's a, it's b") == [2]


def test_a_pattern_that_is_slow_elsewhere_is_not_slow_here():
    assert scores(Matches(kind="matches", pattern="(a+)+$"), "a" * 50_000 + "!") == [0]


@pytest.mark.parametrize(
    ("written", "index"),
    [
        # 16 letters in 5 words of one sentence; 9 letters, 3 words, 3 sentences; and so on.
        ("The quick fox jumps again.", 4.71 * 21 / 5 + 0.5 * 5 / 1 - 21.43),
        ("One. Two! (Six?)", 4.71 * 9 / 3 + 0.5 * 3 / 3 - 21.43),
        ("It is 3.14, e.g. pi", 4.71 * 11 / 5 + 0.5 * 5 / 2 - 21.43),
        ("- ab\r\n- cd\r\n\r\n* ef", 4.71 * 6 / 3 + 0.5 * 3 / 3 - 21.43),
        ("「犬だ。猫だ。」", 4.71 * 4 / 1 + 0.5 * 1 / 2 - 21.43),
        ("Žluť “ok.” Wait... what", 4.71 * 14 / 4 + 0.5 * 4 / 3 - 21.43),
        ("", 0.5 - 21.43),
        (" ?! -- \n ", 0.5 - 21.43),
    ],
)
def test_readability_is_the_automated_readability_index(written, index):
    assert scores(Readability(kind="readability", prefer="harder"), written) == [
        pytest.approx(index, abs=1e-12)
    ]
    assert scores(Readability(kind="readability"), written) == [pytest.approx(-index, abs=1e-12)]


# ---- laws


@pytest.mark.parametrize("rule", RULES, ids=str)
@given(st.lists(st.tuples(text, text), min_size=1, max_size=8))
@settings(max_examples=12, deadline=None)
def test_swapping_the_responses_turns_the_label_round(rule, texts):
    said = rule_annotations(rule, "style", pairs(*texts), TOKENIZER)
    swapped = rule_annotations(rule, "style", pairs(*((b, a) for a, b in texts)), TOKENIZER)
    label = said["label"].to_numpy()
    np.testing.assert_allclose(label, 1 - swapped["label"].to_numpy(), atol=1e-12)
    assert ((label >= 0) & (label <= 1)).all() and np.isfinite(said["score_a"].to_numpy()).all()
    assert said["score_b"].equals(swapped["score_a"])


@pytest.mark.parametrize("rule", RULES, ids=str)
@given(text)
@settings(max_examples=12, deadline=None)
def test_windows_line_ends_change_nothing(rule, written):
    plain = written.replace("\r", "")
    unix, windows = scores(rule, plain, plain.replace("\n", "\r\n"))
    assert unix == windows


@given(st.integers(0, 200), st.integers(0, 200))
@settings(max_examples=30, deadline=None)
def test_conciseness_never_rises_with_length(one, other):
    short, long = sorted((one, other))
    first, second = scores(Conciseness(kind="conciseness"), "w " * short, "w " * long)
    assert first >= second and (first > second or long <= 50 or short == long)


finite = st.floats(-1e6, 1e6)


@given(finite, finite, finite, st.none() | st.floats(1e-3, 1e3))
def test_a_higher_score_is_never_preferred_less(a, b, other, temperature):
    low, high = sorted((a, b))
    found = label_of_scores(np.array([low, high]), np.array([other, other]), temperature)
    assert found[0] <= found[1]


def test_the_label_is_the_sigmoid():
    a, b = np.array([1.0, 1e9, -1e9, 2.0]), np.array([0.0, 0.0, 0.0, 2.0])
    found = label_of_scores(a, b, 2.0)
    np.testing.assert_allclose(found, [1 / (1 + np.exp(-0.5)), 1, 0, 0.5])


# ---- the plumbing


def test_each_text_is_encoded_once():
    asked = []

    class Counting:
        def __call__(self, texts, **options):
            asked.extend(texts)
            return TOKENIZER(texts, **options)

    rule_annotations(RULES[0], "brevity", pairs(("a", "b"), ("b", "a"), ("a", "a")), Counting())
    assert sorted(asked) == ["a", "b"]


def test_tables_in_pieces_and_no_rows():
    pieces = pa.concat_tables([pairs(("a a a a", "b")), pairs(("a", "b b b b"))])
    for rule in RULES[:2]:
        assert rule_annotations(rule, "d", pieces, TOKENIZER)["label"].to_pylist() == [0, 1]
        assert rule_annotations(rule, "d", pieces.slice(0, 0), TOKENIZER).num_rows == 0
        assert rule_annotations(rule, "d", pieces.slice(1), TOKENIZER)["label"].to_pylist() == [1]


def test_tokens_need_a_tokenizer():
    with pytest.raises(ValueError, match="needs a tokenizer"):
        rule_annotations(RULES[0], "brevity", pairs(("a", "b")))


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("(a", r"missing \)"),
        ("(?=a)", "look-around"),
        (r"(a)\1", "back-references"),
        ("a{1001}", "repetition"),
        ("a*", "no text at all"),
    ],
)
def test_a_bad_pattern_is_refused_when_the_problem_is_loaded(tmp_path, pattern, said):
    with pytest.raises(ValidationError, match=said):
        Matches(kind="matches", pattern=pattern)
    file = tmp_path / "styled.yaml"
    file.write_text(
        "name: styled\nextends: demo\nlabels:\n  helpfulness:\n    - kind: matches\n"
        f"      pattern: {json.dumps(pattern)}\n"
    )
    with pytest.raises(ValueError, match=said) as refused:
        load_problem(file)
    assert f"{file}, line 6, labels.helpfulness" in str(refused.value)
    assert ".pattern: " in str(refused.value)
