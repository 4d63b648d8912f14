"""Labels by rules: what can be told from the text alone, counted inside DuckDB or in tokens.

A line end is one character, however it is written. A word is a stretch without white space that
holds a letter or a digit; so text without spaces (Chinese, Thai) is one word per stretch, and is
better measured in characters or tokens.
"""

from typing import assert_never

import numpy as np
import pyarrow as pa

from panacea_lib import quiet_duckdb
from panacea_lib.labelling.scores import scored_annotations
from panacea_lib.models.chat import Tokenizer
from panacea_lib.problem_labelling import Conciseness, Length, Matches, Readability, Rule

_SPACE = r"\s\x0B\x85\p{Z}"  # RE2's \s is ASCII only
_WORD = rf"[\p{{L}}\p{{N}}][^{_SPACE}]*"  # from its first letter: one match per stretch
# Closing quotes and brackets belong to the sentence; "3.14" and "e.g.," end none, CJK ends need no
# space after them. A line is a sentence of its own: lists have no full stops.
_SENTENCE_END = rf"""[.!?…]+["'”’»)\]]*[{_SPACE}]|[。！？\r\x85\x{{2028}}\x{{2029}}]"""
_NEITHER = r"[^\p{L}\p{N}]+"  # neither letter nor digit
_LINE_WITH_WORD = r"[\p{L}\p{N}][^\n]*"
_TEXTS_AT_ONCE = 4_096  # token ids are Python objects: only so many at a time

_SCORES = """
with texts as (
    select
        replace(response_a, chr(13) || chr(10), chr(10)) as text_a,
        replace(response_b, chr(13) || chr(10), chr(10)) as text_b
    from pairs
)
select
    {score_a}::double as score_a,
    {score_b}::double as score_b
from texts
"""


def rule_annotations(
    rule: Rule, dimension: str, pairs: pa.Table, tokenizer: Tokenizer | None = None
) -> pa.Table:
    """What a rule says of every pair: columns of `AnnotationRecord`, in the pairs' order.

    pairs: pair_id, response_a, response_b (and whatever else). The scores are such that the
    higher one is preferred. ValueError where a rule counts tokens and there is no tokenizer.
    """
    if isinstance(rule, Conciseness) or (isinstance(rule, Length) and rule.unit == "tokens"):
        if tokenizer is None:
            raise ValueError(f"the rule {rule.kind!r} counts tokens: it needs a tokenizer")
        a, b = (_score_of_tokens(rule, counts) for counts in _token_counts(pairs, tokenizer))
    else:
        a, b = _scores_in_duckdb(rule, pairs)
    return scored_annotations(
        pairs["pair_id"], dimension, "rule", rule.kind, a, b, rule.temperature
    )


def rule_expression(rule: Length | Matches | Readability, text: str) -> str:
    """The rule's score as SQL over the column `text`; a pattern is the parameter $pattern."""
    match rule:
        case Length():
            count = f"length({text})" if rule.unit == "characters" else _count(text, _WORD)
            return count if rule.prefer == "longer" else f"-({count})"
        case Matches():
            count = f"len(regexp_extract_all({text}, $pattern))"
            return count if rule.prefer == "more" else f"-({count})"
        case Readability():
            index = _readability_index(text)
            return index if rule.prefer == "harder" else f"-({index})"
    assert_never(rule)


def _scores_in_duckdb(
    rule: Length | Matches | Readability, pairs: pa.Table
) -> tuple[np.ndarray, np.ndarray]:
    sql = _SCORES.format(
        score_a=rule_expression(rule, "text_a"), score_b=rule_expression(rule, "text_b")
    )
    parameters = {"pattern": rule.pattern} if isinstance(rule, Matches) else None
    with quiet_duckdb.connect() as connection:
        connection.register("pairs", pairs.select(["response_a", "response_b"]))
        found = connection.sql(sql, params=parameters).fetchnumpy()
    return np.asarray(found["score_a"]), np.asarray(found["score_b"])


def _readability_index(text: str) -> str:
    """4.71·characters/words + 0.5·words/sentences − 21.43 (Senter and Smith, 1967).

    Characters are letters and digits, sentences stretches with a word in them between sentence
    ends (see `_SENTENCE_END`). A text without a word counts as one word of no character, so −20.93.
    """
    characters = f"length(regexp_replace({text}, {_quoted(_NEITHER)}, '', 'g'))"
    words = f"greatest({_count(text, _WORD)}, 1)"
    lines = f"regexp_replace({text}, {_quoted(_SENTENCE_END)}, chr(10), 'g')"
    sentences = f"greatest({_count(lines, _LINE_WITH_WORD)}, 1)"
    return f"4.71e0 * {characters} / {words} + 0.5e0 * {words} / {sentences} - 21.43e0"


def _count(text: str, pattern: str) -> str:
    return f"len(regexp_extract_all({text}, {_quoted(pattern)}))"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _token_counts(pairs: pa.Table, tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of both responses, special tokens apart, shapes (N,); each text is encoded once."""
    both = pa.chunked_array([*pairs["response_a"].chunks, *pairs["response_b"].chunks], pa.string())
    coded = both.dictionary_encode().unify_dictionaries().combine_chunks()
    texts = [text.replace("\r\n", "\n") for text in coded.dictionary.to_pylist()]
    counts = np.empty(len(texts), np.int64)
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        chunk = texts[start : start + _TEXTS_AT_ONCE]
        # verbose: a response longer than the model's window is no accident here
        ids = tokenizer(chunk, add_special_tokens=False, verbose=False)["input_ids"]
        counts[start : start + len(chunk)] = [len(row) for row in ids]
    of_all = counts[coded.indices.to_numpy()]
    return of_all[: pairs.num_rows], of_all[pairs.num_rows :]


def _score_of_tokens(rule: Conciseness | Length, counts: np.ndarray) -> np.ndarray:
    if isinstance(rule, Length):
        return counts * (1.0 if rule.prefer == "longer" else -1.0)
    beyond = np.maximum(counts / rule.tokens - 1, 0)
    return rule.marks - beyond
