"""Preference data from files and from the hub: read, checked, mapped, split."""

from collections.abc import Sequence
from pathlib import Path

from panacea_lib.data.fingerprint import file_hash, files_fingerprint, source_fingerprint
from panacea_lib.data.mapping import SOURCE, Demonstration, PreferenceData, map_onto, map_parts
from panacea_lib.data.pairing import Part
from panacea_lib.data.sources import read_rows, source_name
from panacea_lib.data.split import split_of
from panacea_lib.problem import Problem
from panacea_lib.problem_data import (
    FileData,
    HubData,
    SeveralData,
    WorldData,
    part_name,
    parts_of,
)
from panacea_lib.records import PromptRecord

__all__ = [
    "Demonstration",
    "PreferenceData",
    "file_hash",
    "files_fingerprint",
    "load_preference_data",
    "load_world_files",
    "named_part",
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
        named_part(part, problem_file)
        if several
        else Part(
            rows=read_rows(part, problem_file),
            columns=part.columns,
            where=source_name(part, problem_file),
            annotator=part_name(part) if part.name else SOURCE,
        )
        for part in parts_of(data)
    ]
    return map_parts(parts, data.split, problem.keeps_unlabelled, problem.data_dimensions)


def load_world_files(
    problem: Problem, problem_file: Path, prompts: Sequence[PromptRecord]
) -> PreferenceData:
    """What the files that are added to the embedded world hold about its `prompts` (see
    `map_onto`); nothing where there are none.

    InputError as of `load_preference_data`. TypeError for other data.
    """
    data = problem.data
    if not isinstance(data, WorldData):
        raise TypeError("only the embedded world has files beside what it makes")
    parts = [named_part(part, problem_file) for part in data.files]
    return map_onto(parts, prompts, problem.keeps_unlabelled)


def named_part(part: FileData | HubData, problem_file: Path) -> Part:
    """One of several data sets, whose annotators are told apart by its name."""
    name = part_name(part)
    return Part(
        rows=read_rows(part, problem_file),
        columns=part.columns,
        where=source_name(part, problem_file),
        annotator=name,
        prefix=f"{name}/",
    )
