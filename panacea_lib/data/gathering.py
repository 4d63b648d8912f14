"""The rows of all parts, read, paired and merged: what they come to before prompts have sides."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

from panacea_lib.data.cells import show
from panacea_lib.data.label_checks import no_pairs
from panacea_lib.data.opinions import Pair, Pairs
from panacea_lib.data.pairing import (
    DROPPED,
    Part,
    demonstration_rows,
    pair_demonstrations,
    pair_rows,
)
from panacea_lib.data.rows import PairRow, ResponseRow
from panacea_lib.data.topics import PartTopics

SOURCE = "data"  # of responses and labels that were read, not made


@dataclass(frozen=True)
class Gathered:
    """Pairs and demonstrations, topics by prompt, and counts: of all, and of each part."""

    pairs: list[Pair]
    shown: list[ResponseRow]
    topics: dict[str, str]
    counts: Counter[str]
    part_counts: list[Counter[str]]


def gather(
    parts: Sequence[Part], keep_unlabelled: bool = False, prompts: Collection[str] | None = None
) -> Gathered:
    """Read, check, pair and merge the rows of all parts (`panacea_lib.data.mapping.map_parts` says
    by which rules).

    prompts: the only ones that pairs may be about; None allows all.

    InputError: a bad row, one id on two pairs, two topics of one prompt in one part, a pair about
    another prompt.
    """
    pairs = Pairs(keep_unlabelled)
    shown: list[ResponseRow] = []
    topics: dict[str, str] = {}
    counts = [Counter(dict.fromkeys(("rows_read", *DROPPED), 0)) for _ in parts]
    for part, count in zip(parts, counts, strict=True):
        said = PartTopics(part.columns.topic)
        rows = pair_rows(part, count, said)
        pairs.add(part, rows if prompts is None else _about(prompts, rows, part), count)
        own = demonstration_rows(part, count, said)
        shown += own
        topics = said.known | topics
        if own:
            count["demonstrations"] = len(own)
    between: Counter[str] = Counter()  # demonstrations of two parts meet in a pair
    if shown:
        pairs.add(replace(parts[0], annotator=SOURCE), pair_demonstrations(shown), between)
    total: Counter[str] = Counter()
    for count in (*counts, between):
        total.update(count)
    return Gathered(pairs.all(), shown, topics, total, counts)


def check_joining(
    part: Part, keep_unlabelled: bool, prompts: Collection[str] | None
) -> dict[str, int]:
    """Read and check every row of a part that is to join others; gives its counts.

    InputError: as of `gather`, and where it has neither a pair nor a demonstration.
    """
    found = gather([part], keep_unlabelled, prompts)
    if not found.pairs and not found.shown:
        raise no_pairs([part], found.part_counts)
    return dict(found.counts)


def _about(prompts: Collection[str], rows: Iterable[PairRow], part: Part) -> Iterator[PairRow]:
    for row in rows:
        if row.prompt not in prompts:
            close = get_close_matches(row.prompt, prompts, n=1)
            lists = 'take one that `panacea sql "select distinct text from facts.prompts"` lists'
            raise row.place.error(
                part.columns.prompt or "chosen",
                f"{show(row.prompt)} is none of the problem's prompts",
                f"did you mean {close[0]!r}?" if close else lists,
            )
        yield row
