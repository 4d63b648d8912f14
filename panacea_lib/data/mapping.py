"""Rows + column mapping → prompts, responses, pairs and labels, with everything dropped counted."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

from panacea_lib.data.gathering import SOURCE, Gathered, gather
from panacea_lib.data.label_checks import check_labels, no_pairs
from panacea_lib.data.opinions import Opinion
from panacea_lib.data.pairing import Part
from panacea_lib.data.split import split_prompts
from panacea_lib.problem_data import Split
from panacea_lib.records import (
    AnnotationRecord,
    PairRecord,
    PromptRecord,
    PromptTopicRecord,
    ResponseRecord,
    Side,
    pair_id,
    prompt_id,
    response_id,
)


@dataclass(frozen=True)
class Demonstration:
    """A response that shows one dimension, for supervised fine-tuning."""

    split: Side
    prompt: str
    response: str
    dimension: str


@dataclass(frozen=True)
class PreferenceData:
    """What a source holds. `counts`: see `map_parts`; `part_counts`: the same of each of several
    parts, `pairs` being its own that no part before it has."""

    prompts: list[PromptRecord]
    topics: list[PromptTopicRecord]
    responses: list[ResponseRecord]
    pairs: list[PairRecord]
    annotations: list[AnnotationRecord]
    demonstrations: list[Demonstration]
    counts: dict[str, int]
    part_counts: dict[str, dict[str, int]] = field(default_factory=dict)


def map_parts(
    parts: Sequence[Part],
    split: Split,
    keep_unlabelled: bool = False,
    needed: Sequence[str] = (),
) -> PreferenceData:
    """Read, check, pair, merge and split the rows of all parts.

    keep_unlabelled: keep pairs that no column labels, for other sources to label. needed:
    dimensions that nothing but columns labels.

    Rows that say the same (also with the responses swapped) are dropped. Different opinions on
    one pair stay apart as annotations; the mean of an annotator's, then of all annotators', is
    still P(a preferred over b). Where two parts name different topics of one prompt, the first
    part's stands.

    Counts: `rows_read`, `duplicates_dropped`, `opinions_merged` (rows), `identical_dropped`
    (pairs of one text with itself), `unlabelled_dropped` (pairs without any label),
    `unpaired_dropped` (responses that are alone with their prompt), `empty_dropped`,
    `dialogues_dropped` (see `pair_rows`), then what is left: `prompts`, `responses`, `pairs`,
    `labels`, `ties`, `demonstrations` and `topics` (prompts that have one) if there are any, and
    per dimension `labels.DIMENSION`.

    InputError: a bad row, one id on two pairs, two topics of one prompt in one part, no pair at
    all, a needed dimension without a usable label among the training pairs, one prompt only, an
    empty side of the split.
    """
    found = gather(parts, keep_unlabelled)
    if not found.pairs:
        raise no_pairs(parts, found.part_counts)
    column = parts[0].columns.prompt or "chosen"
    texts = [pair.prompt for pair in found.pairs] + [row.prompt for row in found.shown]
    sides = split_prompts(texts, split, f"{parts[0].where}, line 1, column {column!r}")
    data = _records(found, sides)
    training = {pair.pair_id for pair in data.pairs if pair.split == "train"}
    check_labels(mean_labels(data.annotations), training, parts, needed)
    if len(parts) > 1:
        named = zip(parts, found.part_counts, strict=True)
        data.part_counts.update({part.annotator: dict(count) for part, count in named})
    return data


def map_onto(
    parts: Sequence[Part], prompts: Sequence[PromptRecord], keep_unlabelled: bool = False
) -> PreferenceData:
    """Read, check, pair and merge the rows of all parts, as far as they are about `prompts`, whose
    sides of the split stand.

    Another seed draws other prompts: pairs about those that are not among `prompts` are dropped,
    and counted as `other_prompts_dropped`.

    InputError: a bad row, one id on two pairs.
    """
    found = gather(parts, keep_unlabelled)
    sides: dict[str, Side] = {prompt.text: prompt.split for prompt in prompts}
    kept = [pair for pair in found.pairs if pair.prompt in sides]
    found.counts["other_prompts_dropped"] = len(found.pairs) - len(kept)
    found.counts["pairs"] = len(kept)
    return _records(replace(found, pairs=kept, shown=[]), sides)


def mean_labels(annotations: Sequence[AnnotationRecord]) -> dict[tuple[str, str], float]:
    """(pair, dimension) → the mean over annotators of the mean of what each said."""
    said: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for annotation in annotations:
        assert annotation.label is not None
        said[annotation.pair_id, annotation.dimension][annotation.annotator].append(
            annotation.label
        )
    return {key: fmean(map(fmean, by.values())) for key, by in said.items()}


def _records(found: Gathered, sides: dict[str, Side]) -> PreferenceData:
    topics, counts = found.topics, found.counts
    prompts: dict[str, PromptRecord] = {}
    responses: dict[str, ResponseRecord] = {}
    pair_records: list[PairRecord] = []
    annotations: list[AnnotationRecord] = []

    def recorded(prompt: str, *texts: str) -> tuple[str, list[str]]:
        """The ids of a prompt and of responses to it, once they are among the records."""
        p_id = prompt_id(prompt)
        prompts.setdefault(p_id, PromptRecord(p_id, sides[prompt], prompt))
        ids = [response_id(p_id, SOURCE, text) for text in texts]
        for r_id, text in zip(ids, texts, strict=True):
            responses.setdefault(r_id, ResponseRecord(r_id, p_id, SOURCE, text))
        return p_id, ids

    for pair in found.pairs:
        p_id, ids = recorded(pair.prompt, pair.response_a, pair.response_b)
        record = PairRecord(pair_id(*ids), p_id, sides[pair.prompt], *ids)
        pair_records.append(record)
        annotations += _annotations(record.pair_id, pair.opinions)
    demonstrations = []
    for row in found.shown:
        recorded(row.prompt, row.response)
        (dimension,) = row.scores
        side = sides[row.prompt]
        demonstrations.append(Demonstration(side, row.prompt, row.response, dimension))
    told = [PromptTopicRecord(i, topics[p.text]) for i, p in prompts.items() if p.text in topics]
    if told:
        counts["topics"] = len(told)
    labels = mean_labels(annotations)
    counts.update(
        prompts=len(prompts),
        responses=len(responses),
        labels=len(labels),
        ties=sum(label == 0.5 for label in labels.values()),
    )
    counts.update(f"labels.{dimension}" for _, dimension in labels)
    return PreferenceData(
        list(prompts.values()),
        told,
        list(responses.values()),
        pair_records,
        annotations,
        demonstrations,
        dict(counts),
    )


def _annotations(pair: str, opinions: list[Opinion]) -> Iterator[AnnotationRecord]:
    for opinion in opinions:
        for dimension, label in opinion.labels.items():
            score_a, score_b = opinion.scores.get(dimension, (None, None))
            yield AnnotationRecord(
                pair_id=pair,
                dimension=dimension,
                source=SOURCE,
                annotator=opinion.annotator,
                label=label,
                score_a=score_a,
                score_b=score_b,
                shown_first=None,
                status="ok",
                reason=None,
            )
