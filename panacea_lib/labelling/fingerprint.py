"""What labels follow from outside the problem's file, for content keys: never a path or a time."""

import hashlib
import json
from pathlib import Path
from typing import Any

from panacea_lib.data import file_hash
from panacea_lib.labelling.people import answers_folder, people_fingerprint
from panacea_lib.labelling.rubric import find_rubric
from panacea_lib.problem import Problem
from panacea_lib.problem_files import expand_hub_id, is_local
from panacea_lib.problem_labelling import JudgeLabels, LabelSource, ModelLabels, PeopleLabels
from panacea_lib.workspace import Workspace


def label_fingerprint(
    problem: Problem, problem_file: Path, dimension: str, source: LabelSource
) -> Any:
    """The files, model or rubric that a source reads, as anything JSON holds; None for a rule.

    InputError where a rubric or a model's directory is missing or bad.
    """
    match source:
        case JudgeLabels():
            judge = problem.judges[source.judge]
            rubric = find_rubric(source.rubric or dimension, problem_file)
            described = next(d for d in problem.dimensions if d.name == dimension)
            return [
                rubric.fingerprint,
                described.description,
                judge.model,
                judge.answer_format,
                judge.max_answer_tokens,
            ]
        case ModelLabels():
            return model_fingerprint(source.model, source.revision, problem_file)
        case PeopleLabels():
            folder = answers_folder(problem, problem_file, Workspace.current(), dimension)
            return people_fingerprint(folder, dimension)
    return None


def model_fingerprint(model: str, revision: str, problem_file: Path) -> str:
    """The files of a local directory, or a hub id and a revision."""
    if not is_local(model):
        return f"{model}@{revision}"
    folder = Path(expand_hub_id(model, problem_file))
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    content = [[path.relative_to(folder).as_posix(), file_hash(path)] for path in files]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
