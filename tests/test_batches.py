"""Batches of like length: every row once, and never more tokens than there is memory for."""

from hypothesis import given
from hypothesis import strategies as st

from panacea_lib.batches import by_length


@given(st.lists(st.integers(1, 400), max_size=300), st.integers(1, 5000))
def test_every_row_once_and_no_batch_too_large(lengths, tokens):
    batches = list(by_length(lengths, tokens))
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        widest = max(lengths[row] for row in batch)
        assert len(batch) * widest <= tokens or len(batch) == 1
        assert widest == lengths[batch[-1]], "the last is the longest"


def test_one_short_row_among_long_ones_makes_no_huge_batch():
    assert max(map(len, by_length([1] + [384] * 2000, 16_384))) <= 16_384 // 384
