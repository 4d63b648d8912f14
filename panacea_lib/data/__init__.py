"""Preference data from files and from the hub: read, checked, mapped, split."""

from pathlib import Path

from panacea_lib.data.fingerprint import file_hash, source_fingerprint
from panacea_lib.data.mapping import PreferenceData, map_rows
from panacea_lib.data.sources import read_rows, source_name
from panacea_lib.data.split import split_of
from panacea_lib.problem import Problem
from panacea_lib.problem_data import WorldData

__all__ = [
    "PreferenceData",
    "file_hash",
    "load_preference_data",
    "source_fingerprint",
    "split_of",
]


def load_preference_data(problem: Problem, problem_file: Path) -> PreferenceData:
    """Everything the problem's file or hub data set holds; nothing is written.

    InputError names file, row, column and remedy for whatever is bad (see `map_rows`,
    `read_rows`). TypeError for the embedded world, which makes its own data.
    """
    data = problem.data
    if isinstance(data, WorldData):
        raise TypeError("the embedded world is no file: panacea_lib.world makes its data")
    rows = read_rows(data, problem_file)
    return map_rows(rows, data.columns, data.split, source_name(data, problem_file))
