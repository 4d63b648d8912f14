"""Every layout of columns: dialogues, graded and listed responses, strengths, demonstrations."""

from typing import Any

import pytest
from data_rows import WIDE, labels_of, map_rows, numbered, pair, preferred

from panacea_lib.data.cells import RowPlace
from panacea_lib.data.dialogues import prompt_text, split_dialogue
from panacea_lib.data.mapping import map_parts
from panacea_lib.data.pairing import Part, in_any_order
from panacea_lib.data.rows import PairRow
from panacea_lib.errors import InputError
from panacea_lib.problem_columns import (
    ChosenColumns,
    DemonstrationColumns,
    PairColumns,
    ResponseColumns,
)

HERE = RowPlace("here", "row", 1)
HH = ChosenColumns(layout="chosen", dimension="warm", drop_empty=True)


def dialogue(*turns: str) -> str:
    """In the manner of Anthropic's: the user begins, and the assistant has the last word."""
    speakers = ("Human", "Assistant")
    return "".join(f"\n\n{speakers[i % 2]}: {turn}" for i, turn in enumerate(turns))


def test_whole_dialogues_part_at_their_last_answer() -> None:
    rows = [
        {"chosen": dialogue(f"q{i}", f"good {i}"), "rejected": dialogue(f"q{i}", f"bad {i}")}
        for i in range(40)
    ]
    longer = ("hello", "hi", "why?")
    special = [
        {"chosen": dialogue(*longer, "because"), "rejected": dialogue(*longer, "no idea")},
        {"chosen": dialogue("x", "y", "z", "w"), "rejected": dialogue("x", "other", "z", "w2")},
        {"chosen": dialogue("x", "y"), "rejected": dialogue("x", "")},
        {"chosen": dialogue("x", "y", "and?"), "rejected": dialogue("x", "y", "and?")},
        {"chosen": dialogue("x", "y"), "rejected": dialogue("x", "y")},
    ]
    data = map_rows(numbered([*special, *rows]), HH, WIDE, "here")
    told = {k: n for k, n in data.counts.items() if n and k.endswith("_dropped")}
    assert told == {"dialogues_dropped": 2, "empty_dropped": 1, "identical_dropped": 1}
    assert data.counts["rows_read"] == data.counts["pairs"] + 4
    found = preferred(data)
    assert ("Human: hello\n\nAssistant: hi\n\nHuman: why?", "because") in found
    assert ("q0", "good 0") in found, "a lone turn of the user's is its text"
    sides = [label.label for label in labels_of(data)]
    assert 0.2 < sum(x or 0 for x in sides) / len(sides) < 0.8, "the chosen one is a or b"


def test_dialogues_as_messages_and_with_a_prompt_column() -> None:
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": " yes "}]
    assert split_dialogue(messages, "chosen", HERE, False) == ("q", " yes ")
    columns = ChosenColumns(layout="chosen", prompt="prompt", dimension="warm")
    rows = [
        {"prompt": f"q{i}", "chosen": [{"role": "assistant", "content": "yes"}], "rejected": "no"}
        for i in range(30)
    ]
    assert {text for _, text in preferred(map_rows(numbered(rows), columns, WIDE, "here"))} == {
        "yes"
    }
    for value, says in (
        (messages[:1], "the last message is user's"),
        ("no dialogue", "this is no dialogue"),
        ([{"role": "user"}, messages[1]], ".* is no message"),
        (dialogue("q", " "), "the text is empty"),
    ):
        with pytest.raises(InputError, match=f"here, row 1, column 'chosen': {says}"):
            split_dialogue(value, "chosen", HERE, False)


def test_prompts_of_several_turns_have_one_form() -> None:
    turns = [("system", "be brief"), ("user", "a"), ("assistant", "b"), ("user", "c")]
    messages = [{"role": role, "content": content} for role, content in turns]
    whole = "System: be brief\n\nHuman: a\n\nAssistant: b\n\nHuman: c"
    assert prompt_text(messages, "context", HERE, False) == whole
    assert prompt_text(messages[1:2], "context", HERE, False) == "a"
    assert split_dialogue(dialogue("a", "b", "c", "d"), "x", HERE, False) == (
        prompt_text(messages[1:], "context", HERE, False),
        "d",
    )
    with pytest.raises(InputError, match="column 'context': the text is empty"):
        prompt_text([], "context", HERE, False)


def test_the_order_of_a_pair_is_a_coin_that_falls_alike() -> None:
    rows = [PairRow(HERE, None, f"q{i}", "good", "bad", {"warm": 1.0}) for i in range(200)]
    drawn = [in_any_order(row) for row in rows]
    assert 60 < sum(row.response_a == "good" for row in drawn) < 140
    for row, seen in zip(rows, drawn, strict=True):
        assert seen.labels["warm"] == float(seen.response_a == "good")
        swapped = PairRow(HERE, None, row.prompt, "bad", "good", {"warm": 0.0})
        assert in_any_order(swapped) == seen


def test_values_and_strengths() -> None:
    labels: Any = {
        "warm": {"preferred": "warm", "values": {"0": "a", "1": "b", "-1": "unknown"}},
        "short": {"strength": "short", "scale": 3, "positive": "b"},
    }
    columns = PairColumns.model_validate({"layout": "pairs", "labels": labels})
    given = [(0, -3), (1, 3), (1.0, 0), ("1", -1), (True, 2)]
    values = [*given[:4], (-1, 1)]
    rows = [pair(str(i), f"a{i}", f"b{i}", *value) for i, value in enumerate(values)]
    plain = [
        {"prompt": f"p{i}", "response_a": "x", "response_b": "y", "warm": i % 2, "short": 1}
        for i in range(30)
    ]
    data = map_rows(numbered([*rows, *plain]), columns, WIDE, "here")
    of = {(x.pair_id, x.dimension): x.label for x in labels_of(data)}
    ids = [record.pair_id for record in data.pairs[:5]]
    assert [of.get((i, "warm")) for i in ids] == [1.0, 0.0, 0.0, 0.0, None]
    assert [of[i, "short"] for i in ids] == pytest.approx([1, 0, 0.5, 2 / 3, 1 / 3])
    for value, says in (
        (given[4], "'warm': holds True; write one of '0', '1', '-1'"),
        ((0, 4), "'short': 4 lies beyond the scale 3"),
        ((0, "much"), "'short': 'much' is not a number"),
    ):
        with pytest.raises(InputError, match=says):
            map_rows(numbered([pair("x", "a", "b", *value)]), columns, WIDE, "here")


def test_graded_by_truth_values_and_brought_together() -> None:
    columns = ResponseColumns(layout="responses", scores={"warm": "is_safe"}, group="prompt")
    rows = [
        {"prompt": f"p{i % 30}", "response": f"r{i}", "is_safe": i < 30 if i % 7 else None}
        for i in range(60)
    ]
    data = map_rows(numbered(rows), columns, WIDE, "here")
    assert data.counts["pairs"] + data.counts["unlabelled_dropped"] == 30
    assert {text for _, text in preferred(data)} <= {f"r{i}" for i in range(30)}
    with pytest.raises(InputError, match="write `group: prompt`"):
        apart = columns.model_copy(update={"group": "consecutive"})
        map_rows(numbered(rows), apart, WIDE, "here")


def completion(text: str, rating: Any) -> dict[str, Any]:
    return {"response": text, "annotations": {"warm": {"Rating": rating}, "short": None}}


def test_a_list_of_completions() -> None:
    columns = ResponseColumns(
        layout="responses",
        completions="completions",
        scores={"warm": "annotations.warm.Rating", "short": "annotations.short.Rating"},
        unknown=["N/A"],
        drop_empty=True,
    )
    rows = [
        {
            "prompt": f"p{i}",
            "completions": [
                completion("good", "5"),
                completion("bad", "2"),
                completion("odd", "N/A"),
                completion(" ", "4"),
            ],
        }
        for i in range(30)
    ]
    data = map_rows(numbered(rows), columns, WIDE, "here", keep_unlabelled=True)
    assert data.counts["pairs"] == 90 and data.counts["labels"] == 30
    assert data.counts["empty_dropped"] == 30
    assert {text for _, text in preferred(data)} == {"good"}
    for spoilt, says in (
        ([completion("good", "very")], "'completions.annotations.warm.Rating': 'very' is not a"),
        ("none", "'completions': holds 'none'; write a list of objects"),
    ):
        with pytest.raises(InputError, match=says):
            row = {"prompt": "p", "completions": spoilt}
            map_rows(numbered([row]), columns, WIDE, "here")


def test_logs_without_any_score_become_unlabelled_pairs() -> None:
    columns = ResponseColumns(layout="responses")
    rows = [{"prompt": f"p{i // 3}", "response": f"r{i}"} for i in range(90)]
    data = map_rows(numbered(rows), columns, WIDE, "here", keep_unlabelled=True)
    assert data.counts["pairs"] == 90 and data.annotations == []
    again = map_rows(numbered(rows * 2), columns, WIDE, "here", keep_unlabelled=True)
    assert again.counts["pairs"] == again.counts["duplicates_dropped"] == 90
    with pytest.raises(InputError, match=r"90 unlabelled_dropped.*another source label"):
        map_rows(numbered(rows), columns, WIDE, "here")


def demonstrations(dimension: str, start: int, n: int = 40) -> Part:
    columns = DemonstrationColumns(layout="demonstrations", input="input", dimension=dimension)
    rows = [
        {"instruction": f"do {i}", "input": ["", "this"][i % 2], "output": f"{dimension} {i}"}
        for i in range(start, start + n)
    ]
    return Part(numbered(rows), columns, f"{dimension}.jsonl", dimension)


def test_demonstrations_and_the_pairs_of_shared_prompts() -> None:
    parts = [demonstrations("warm", 0), demonstrations("short", 10)]
    data = map_parts(parts, WIDE, needed=["warm", "short"])
    assert len(data.demonstrations) == data.counts["demonstrations"] == 80
    assert data.counts["pairs"] == 30 and data.counts["labels"] == 60
    assert data.counts["prompts"] == 50 and data.counts["responses"] == 80
    assert ("do 11\n\nthis", "warm 11") in preferred(data)
    assert ("do 12", "short 12") in preferred(data)
    side = {prompt.text: prompt.split for prompt in data.prompts}
    assert all(side[shown.prompt] == shown.split for shown in data.demonstrations)
    apart = [demonstrations("warm", 0), demonstrations("short", 60)]
    with pytest.raises(InputError, match=r"warm\.jsonl, column 'instruction': no two demonstr"):
        map_parts(apart, WIDE)


def test_empty_texts_are_refused_or_dropped() -> None:
    rows = [pair(str(i), "x", "y", [1, 0]) | {"prompt": f"p{i}"} for i in range(30)]
    columns = PairColumns(layout="pairs", labels={"warm": "warm"})
    spoilt = [*rows, pair("e", "", "y", [1, 0]), pair("n", "x", "y", [1, 0]) | {"prompt": None}]
    with pytest.raises(InputError, match=r"row 31.*the text is empty.*drop_empty: true"):
        map_rows(numbered(spoilt), columns, WIDE, "here")
    dropping = columns.model_copy(update={"drop_empty": True})
    counts = map_rows(numbered(spoilt), dropping, WIDE, "here").counts
    assert (counts["empty_dropped"], counts["pairs"]) == (2, 30)
