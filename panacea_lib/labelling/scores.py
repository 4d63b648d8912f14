"""Scores of two responses → P(a preferred over b): one rule for all that score them one by one."""

import numpy as np
import pyarrow as pa

from panacea_lib.records import AnnotationRecord, arrow_schema


def label_of_scores(
    score_a: np.ndarray | np.float64, score_b: np.ndarray | np.float64, temperature: float | None
) -> np.ndarray | np.float64:
    """P(a preferred over b), of one pair or shape (N,), from two finite scores each: the higher,
    the better.

    σ((score_a − score_b) / temperature); without a temperature the higher score wins (1 or 0)
    and equal ones are a tie (0.5). Swapping a and b turns p into 1 − p.
    """
    difference = score_a - score_b
    if temperature is None:
        return 0.5 + 0.5 * np.sign(difference)
    return 0.5 + 0.5 * np.tanh(difference / (2 * temperature))  # σ, and no exp that overflows


def scored_annotations(
    pair_ids: pa.ChunkedArray | pa.Array,
    dimension: str,
    source: str,
    annotator: str,
    score_a: np.ndarray,
    score_b: np.ndarray,
    temperature: float | None,
) -> pa.Table:
    """A row per pair (columns of `AnnotationRecord`): both scores, shape (N,), and their label."""
    n = len(pair_ids)
    columns = {
        "pair_id": pair_ids,
        "dimension": pa.repeat(dimension, n),
        "source": pa.repeat(source, n),
        "annotator": pa.repeat(annotator, n),
        "label": label_of_scores(score_a, score_b, temperature),
        "score_a": score_a,
        "score_b": score_b,
        "shown_first": pa.nulls(n, pa.string()),
        "status": pa.repeat("ok", n),
        "reason": pa.nulls(n, pa.string()),
    }
    return pa.table(columns, schema=arrow_schema(AnnotationRecord))
