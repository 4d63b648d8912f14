"""Annotations → one label per pair and dimension: the most trusted source that knows one."""

from collections.abc import Sequence

import pyarrow as pa

from panacea_lib import quiet_duckdb
from panacea_lib.records import LabelRecord, arrow_schema

# An annotator who was asked twice (in both orders) has one opinion, and none where one of the two
# answers failed. Rank 0 is the most trusted source.
_RESOLVE = """
with opinions as (
    select
        rank, pair_id, dimension, source, annotator,
        case when bool_and(status = 'ok') then avg(label) end as label,
        min(label) as least, max(label) as greatest, count(*) as answers,
        min(reason) filter (status = 'failed') as reason, min(place) as place
    from said group by all
),
sources as (
    select
        rank, pair_id, dimension, source,
        avg(label) as label,
        min(least) filter (label is not null) as least,
        max(greatest) filter (label is not null) as greatest,
        sum(answers) filter (label is not null) as answers,
        coalesce(
            list(annotator order by annotator) filter (label is not null),
            list(annotator order by annotator)
        ) as annotators,
        min(reason) as reason, min(place) as place
    from opinions group by all
)
select
    pair_id, dimension, label,
    case when label is null then 'failed' else 'ok' end as status,
    source,
    case when len(annotators) = 1 then annotators[1] else len(annotators) || ' annotators' end
        as annotator,
    case when answers > 1 then 1 - (greatest - least) end as confidence,
    case when label is null then reason end as reason
from sources
qualify row_number() over (partition by pair_id, dimension order by label is null, rank) = 1
order by dimension, place, pair_id
"""


def resolve_labels(annotations: Sequence[pa.Table]) -> pa.Table:
    """One row per (pair, dimension) that anybody was asked about, in the columns of `LabelRecord`.

    annotations: a table per source (columns of `AnnotationRecord`), the most trusted first. The
    label is the mean over the annotators of the first source that has one; where none has, the
    status is "failed". confidence: 1 less the distance between the farthest answers behind the
    label, None for a single answer.
    """
    ranked = [
        table.append_column("rank", pa.array([rank] * table.num_rows, pa.int64())).append_column(
            "place", pa.array(range(table.num_rows), pa.int64())
        )
        for rank, table in enumerate(annotations)
    ]
    with quiet_duckdb.connect() as connection:
        connection.register("said", pa.concat_tables(ranked))
        found = connection.sql(_RESOLVE).to_arrow_table()
    return found.cast(arrow_schema(LabelRecord))
