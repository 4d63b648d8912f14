"""How far annotators agree: Krippendorff's alpha, for all of them and for each with the others."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

_VERDICTS = [-1, 0, 1]  # b, tie, a


@dataclass(frozen=True, slots=True)
class AgreementRecord:
    """One figure of agreement on a dimension: a row of facts.label_agreement.

    annotator: source and name, with all others; empty for all annotators together. metric: "alpha"
    or "majority". value: None where it is undefined. n: the pairs behind it.
    """

    dimension: str
    annotator: str
    metric: str
    value: float | None
    n: int


def agreement(annotations: Iterable[pa.Table]) -> list[AgreementRecord]:
    """Figures of every dimension in the tables (columns of `AnnotationRecord`), in their order.

    Only pairs that two annotators or more have answered count. An answer is its verdict: a, tie or
    b, by the side of 0.5 that its label is on. "alpha" is Krippendorff's for interval data, as a
    tie lies half way between a and b; that of one annotator takes him for one coder and the
    majority of all others for the second. It is 1 for perfect agreement and 0 for what chance would
    give, and undefined where no pair is shared, or all verdicts are alike. "majority" is the share
    of pairs on which an annotator took the side, a or b, that more of the others took; where those
    are evenly split, a pair is left out. One who was asked twice has one opinion, the mean; one
    that failed is none.
    """
    found: dict[str, dict[str, dict[str, list[float | None]]]] = {}
    columns = ("dimension", "source", "annotator", "pair_id", "label")
    for table in annotations:
        rows = zip(*(table[name].to_pylist() for name in columns), strict=True)
        for dimension, source, annotator, pair, label in rows:
            opinions = found.setdefault(dimension, {}).setdefault(f"{source} {annotator}", {})
            opinions.setdefault(pair, []).append(label)
    return [
        record
        for dimension, opinions in found.items()
        for record in _of_dimension(dimension, list(opinions), _verdicts(opinions.values()))
    ]


def alpha(verdicts: np.ndarray) -> float | None:
    """Krippendorff's alpha for interval data; verdicts: annotators × pairs of -1, 0, 1 or NaN.

    None where no pair has two answers, or all answers are alike.
    """
    import krippendorff

    verdicts = verdicts[:, (~np.isnan(verdicts)).sum(axis=0) > 1]
    said = verdicts[~np.isnan(verdicts)]
    if len(said) == 0 or said.min() == said.max():
        return None
    # Told the three values, it takes memory for pairs × 9; of its own accord, for values².
    found = krippendorff.alpha(
        reliability_data=verdicts, level_of_measurement="interval", value_domain=_VERDICTS
    )
    return float(found)


def _verdicts(opinions: Iterable[dict[str, list[float | None]]]) -> np.ndarray:
    """Annotators × shared pairs, NaN where one has said nothing."""
    said = list(opinions)
    pairs = {pair: i for i, pair in enumerate(dict.fromkeys(p for each in said for p in each))}
    matrix = np.full((len(said), len(pairs)), np.nan)
    for row, each in enumerate(said):
        for pair, labels in each.items():
            known = [label for label in labels if label is not None]
            if len(known) == len(labels):
                matrix[row, pairs[pair]] = np.sign(np.mean(known) - 0.5)
    return matrix[:, (~np.isnan(matrix)).sum(axis=0) > 1]


def _of_dimension(
    dimension: str, annotators: list[str], verdicts: np.ndarray
) -> list[AgreementRecord]:
    shared_by_all = verdicts.shape[1]
    records = [AgreementRecord(dimension, "", "alpha", alpha(verdicts), shared_by_all)]
    for row, annotator in enumerate(annotators):
        shared = verdicts[:, ~np.isnan(verdicts[row])]
        own, side = shared[row], np.sign(np.nansum(np.delete(shared, row, axis=0), axis=0))
        value = alpha(np.stack([own, side]))
        records.append(AgreementRecord(dimension, annotator, "alpha", value, len(own)))
        hits = (own == side)[side != 0]
        value = float(hits.mean()) if len(hits) else None
        records.append(AgreementRecord(dimension, annotator, "majority", value, len(hits)))
    return records
