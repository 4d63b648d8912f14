"""What a problem's data is, as one hash for content keys: never a path or a time."""

import hashlib
from pathlib import Path

from panacea_lib.data.sources import data_file
from panacea_lib.problem import Problem
from panacea_lib.problem_data import FileData, HubData, WorldData, parts_of
from panacea_lib.problem_files import expand_hub_id, is_local


def file_hash(path: Path) -> str:
    """SHA-256 of the file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def source_fingerprint(problem: Problem, problem_file: Path) -> str:
    """The hash of the data's content; the configuration around it (columns, split) is not in it.

    A file: its bytes. A hub data set: its id, revision, subset and split, so a branch whose
    content changed looks the same (pin a commit). The embedded world: a constant, since it
    follows from the configuration, the seed and the world's own version. Several data sets: all of
    theirs, in their order.
    InputError as `data_file` and `expand_hub_id` raise it.
    """
    data = problem.data
    if isinstance(data, WorldData):
        return hashlib.sha256(data.kind.encode()).hexdigest()
    parts = [_part_fingerprint(part, problem_file) for part in parts_of(data)]
    if len(parts) == 1:
        return parts[0]
    return hashlib.sha256("\0".join([data.kind, *parts]).encode()).hexdigest()


def files_fingerprint(problem: Problem, problem_file: Path) -> str:
    """The hash of the files that are added to the embedded world, in their order; "" without any.

    InputError as `data_file` raises it.
    """
    data = problem.data
    if not isinstance(data, WorldData) or not data.files:
        return ""
    parts = [_part_fingerprint(part, problem_file) for part in data.files]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _part_fingerprint(data: FileData | HubData, problem_file: Path) -> str:
    digest = hashlib.sha256(data.kind.encode())
    if isinstance(data, FileData):
        digest.update(file_hash(data_file(data, problem_file)).encode())
        return digest.hexdigest()
    content = [data.subset or "", data.hub_split]
    if data.data_dir:
        content.append(data.data_dir)
    if is_local(data.dataset):
        folder = Path(expand_hub_id(data.dataset, problem_file))
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            content += [path.relative_to(folder).as_posix(), file_hash(path)]
    else:
        content += [data.dataset, data.revision]
    digest.update("\0".join(content).encode())
    return digest.hexdigest()
