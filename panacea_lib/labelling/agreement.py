"""How far annotators agree: Krippendorff's alpha, for all of them and for each with the others."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa


@dataclass(frozen=True, slots=True)
class AgreementRecord:
    """One figure of agreement on a dimension.

    source, annotator: whose, with all others; both empty for all annotators together. metric:
    "alpha" or "majority". value: None where it is undefined. n: the pairs behind it.
    """

    dimension: str
    source: str
    annotator: str
    metric: str
    value: float | None
    n: int


def agreement(annotations: Iterable[pa.Table]) -> list[AgreementRecord]:
    """Figures of every dimension in the tables (columns of `AnnotationRecord`), in their order.

    Only pairs that two annotators or more have answered count. "alpha" is Krippendorff's for
    interval data, since an answer is a probability: a tie lies half way between a and b. That of
    one annotator takes him for one coder and the mean of all others for the second. It is 1 for
    perfect agreement and 0 for what chance would give, and undefined where no pair is shared, or
    all answers are alike. "majority" is the share of pairs on which an annotator took the side, a
    or b, that more of the others took; where those are evenly split, a pair is left out.
    One who was asked twice has one opinion, the mean; one that failed is none.
    """
    found: dict[str, dict[tuple[str, str], dict[str, list[float | None]]]] = {}
    columns = ("dimension", "source", "annotator", "pair_id", "label")
    for table in annotations:
        rows = zip(*(table[name].to_pylist() for name in columns), strict=True)
        for dimension, source, annotator, pair, label in rows:
            opinions = found.setdefault(dimension, {}).setdefault((source, annotator), {})
            opinions.setdefault(pair, []).append(label)
    return [
        record
        for dimension, opinions in found.items()
        for record in _of_dimension(dimension, list(opinions), _matrix(opinions.values()))
    ]


def alpha(labels: np.ndarray) -> float | None:
    """Krippendorff's alpha for interval data; labels: annotators × pairs, NaN where not answered.

    1 − observed / expected disagreement. For squared distances these are the variance within a
    pair (each counted as often as it was answered) and that of all answers: Krippendorff, Content
    Analysis (2004), ch. 11. None where no pair has two answers, or all answers are alike. The
    package krippendorff says the same (a test compares them), but takes memory for pairs × values²,
    and a judge's probabilities have as many values as there are pairs.
    """
    answers = (~np.isnan(labels)).sum(axis=0)
    labels, answers = labels[:, answers > 1], answers[answers > 1]
    said = labels[~np.isnan(labels)]
    if len(said) == 0 or said.min() == said.max():
        return None
    within = np.nanvar(labels, axis=0, ddof=1)
    return float(1 - (answers @ within) / answers.sum() / said.var(ddof=1))


def _matrix(opinions: Iterable[dict[str, list[float | None]]]) -> np.ndarray:
    """Annotators × shared pairs, NaN where one has said nothing."""
    said = list(opinions)
    pairs = {pair: i for i, pair in enumerate(dict.fromkeys(p for each in said for p in each))}
    matrix = np.full((len(said), len(pairs)), np.nan)
    for row, each in enumerate(said):
        for pair, labels in each.items():
            known = [label for label in labels if label is not None]
            if len(known) == len(labels):
                matrix[row, pairs[pair]] = np.mean(known)
    return matrix[:, (~np.isnan(matrix)).sum(axis=0) > 1]


def _of_dimension(
    dimension: str, annotators: list[tuple[str, str]], matrix: np.ndarray
) -> list[AgreementRecord]:
    records = [AgreementRecord(dimension, "", "", "alpha", alpha(matrix), matrix.shape[1])]
    for row, (source, annotator) in enumerate(annotators):
        shared = matrix[:, ~np.isnan(matrix[row])]
        own, others = shared[row], np.delete(shared, row, axis=0)
        n = len(own)
        value = alpha(np.stack([own, np.nanmean(others, axis=0)])) if n else None
        records.append(AgreementRecord(dimension, source, annotator, "alpha", value, n))
        side = np.nansum(np.sign(others - 0.5), axis=0)
        hits = (np.sign(own - 0.5) == np.sign(side))[side != 0]
        value = float(hits.mean()) if len(hits) else None
        records.append(AgreementRecord(dimension, source, annotator, "majority", value, len(hits)))
    return records
