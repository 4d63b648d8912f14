"""Preference data from files and from the hub: read, checked, mapped, split."""

from pathlib import Path

from panacea_lib.data.fingerprint import file_hash, source_fingerprint
from panacea_lib.data.mapping import SOURCE, Demonstration, PreferenceData, map_parts
from panacea_lib.data.pairing import Part
from panacea_lib.data.sources import read_rows, source_name
from panacea_lib.data.split import split_of
from panacea_lib.problem import Problem
from panacea_lib.problem_data import SeveralData, WorldData, part_name, parts_of

__all__ = [
    "Demonstration",
    "PreferenceData",
    "file_hash",
    "load_preference_data",
    "source_fingerprint",
    "split_of",
]


def load_preference_data(problem: Problem, problem_file: Path) -> PreferenceData:
    """Everything the problem's files or hub data sets hold; nothing is written.

    InputError names file, row, column and remedy for whatever is bad (see `map_parts`,
    `read_rows`). TypeError for the embedded world, which makes its own data.
    """
    data = problem.data
    if isinstance(data, WorldData):
        raise TypeError("the embedded world is no file: panacea_lib.world makes its data")
    several = isinstance(data, SeveralData)
    parts = [
        Part(
            rows=read_rows(part, problem_file),
            columns=part.columns,
            where=source_name(part, problem_file),
            annotator=part_name(part) if several or part.name else SOURCE,
            prefix=f"{part_name(part)}/" if several else "",
        )
        for part in parts_of(data)
    ]
    return map_parts(parts, data.split, problem.keeps_unlabelled, problem.data_dimensions)
