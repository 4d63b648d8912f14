"""Find and read problem files; resolve what they name: other problems, variables, paths.

`python -m panacea_lib.problem_files > docs/problem.schema.json` publishes the schema anew.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from panacea_lib.errors import InputError
from panacea_lib.problem import Problem
from panacea_lib.problem_data import KnownData
from panacea_lib.problem_errors import explain, nearest
from panacea_lib.problem_known import expand_known, known_datasets
from panacea_lib.problem_merge import anchored, is_local, merge
from panacea_lib.problem_yaml import YamlDocument, read_yaml
from panacea_lib.received import with_received
from panacea_lib.workspace import Workspace

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_VARIABLE = re.compile(r"\$\{([^}]*)\}")
# Never taken over by `extends`: each file speaks for itself.
_OWN_KEYS = ("name", "extends")
# Nor is this by a file with `dimensions` of its own, which it may map otherwise.
_OF_DIMENSIONS = ("inbox",)


def find_problems(workspace: Workspace) -> dict[str, Path]:
    """Every problem file by name: the shipped ones, then those of `PANACEA_PROBLEMS`.

    The files are not read. InputError: a folder is missing, a file's stem is no problem name, or
    two files have one name.
    """
    found: dict[str, Path] = {}
    for folder in dict.fromkeys(folder.resolve() for folder in workspace.problem_dirs):
        if not folder.is_dir():
            raise InputError(
                f"{folder}: no such folder; create it or take it out of PANACEA_PROBLEMS"
            )
        for path in sorted(folder.glob("*.yaml"), key=lambda path: path.stem):
            if path.name.startswith("."):
                continue  # an editor's or a system's hidden file
            check_name(path.stem, f"{path}: the file's name without .yaml")
            if other := found.get(path.stem):
                raise InputError(
                    f"two problems are named {path.stem!r}: {other} and {path}; rename one file "
                    "and its `name`"
                )
            found[path.stem] = path
    return found


def load_problem_named(workspace: Workspace, name: str) -> Problem:
    """The problem of that name; InputError if there is none or its file is bad."""
    problems = find_problems(workspace)
    if name not in problems:
        folders = ", ".join(str(folder) for folder in workspace.problem_dirs)
        raise InputError(
            f"no problem is named {name!r} ({nearest(name, problems)}); "
            f"problems are NAME.yaml files in {folders}"
        )
    return load_problem(problems[name], workspace)


def load_problem(path: Path, workspace: Workspace | None = None) -> Problem:
    """Read and check one problem file and what it extends; what its inbox has received in the
    workspace is part of its data.

    InputError, one line per mistake with file, line and key: unreadable, not YAML, an unknown,
    missing or duplicate key, a wrong type or value, `name` other than the file's stem, or an
    `extends` that is unknown or goes in a circle. Data files are not looked at.
    """
    workspace = workspace or Workspace.current()
    documents = _chain(path, workspace)
    values: dict[str, Any] = {}
    for document in reversed(documents):
        own = _OWN_KEYS + (_OF_DIMENSIONS if "dimensions" in document.values else ())
        inherited = {key: value for key, value in values.items() if key not in own}
        values = merge(inherited, anchored(document, path.resolve().parent))
    values.pop("extends", None)
    values = expand_known(values, documents)
    try:
        # As JSON: there pydantic can be strict (`steps: true` or `"3"` is no whole number) and
        # still take lists and mappings for what they are.
        problem = Problem.model_validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        raise InputError(explain(error, values, documents)) from error
    if problem.name != path.stem:
        line = documents[0].lines[("name",)]
        raise InputError(
            f"{path}, line {line}, name: {problem.name!r} is not the file's name; "
            f"write `name: {path.stem}` or rename the file to {problem.name}.yaml"
        )
    return with_received(problem, workspace)


def problem_json_schema() -> dict[str, Any]:
    """The schema of problem files for editors, published as docs/problem.schema.json."""
    schema = Problem.model_json_schema()
    schema["properties"]["extends"] = {
        "type": "string",
        "pattern": f"^{_NAME.pattern}$",
        "description": "the name of a problem whose keys this one takes over where it has none",
    }
    _add_known(schema)
    inheritable = [key for key in schema["required"] if key not in _OWN_KEYS]
    schema["required"] = ["name"]
    schema["anyOf"] = [{"required": ["extends"]}, {"required": inheritable}]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _add_known(schema: dict[str, Any]) -> None:
    """`kind: known`, which `expand_known` replaces before a problem is checked."""
    known = KnownData.model_json_schema(ref_template="#/$defs/{model}")
    known.pop("$defs")  # the others have them too
    known["properties"]["name"]["enum"] = list(known_datasets())
    schema["$defs"]["KnownData"] = known
    parts = schema["$defs"]["SeveralData"]["properties"]["parts"]["items"]
    for union in (schema["properties"]["data"], parts):
        union["oneOf"].append({"$ref": "#/$defs/KnownData"})
        union["discriminator"]["mapping"]["known"] = "#/$defs/KnownData"


def expand_path(text: str, problem_file: Path) -> Path:
    """The absolute path that `text` in a problem file means.

    `${NAME}` is an environment variable (InputError if it is unset or empty), `~` the home
    folder. A relative path is relative to the problem's file; one that begins with a variable
    is relative to the working directory, as it would be in a shell.
    """

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise InputError(
                f"{problem_file}: {text!r}: ${{{name}}} names no environment variable; "
                "write ${NAME}"
            )
        if not os.environ.get(name):
            raise InputError(
                f"{problem_file}: the path {text!r} needs the environment variable {name}, "
                f"which is not set; set it, e.g. `export {name}=/path/to/it`"
            )
        return os.environ[name]

    expanded = _VARIABLE.sub(value, text)
    if "\0" in expanded or not expanded.strip():
        raise InputError(f"{problem_file}: {text!r} is no path; write the path of a file")
    base = Path.cwd() if text.startswith("${") else problem_file.resolve().parent
    return Path(os.path.normpath(base / os.path.expanduser(expanded)))  # noqa: PTH111


def expand_hub_id(text: str, problem_file: Path) -> str:
    """A hub id as it is, or the absolute path of an existing local directory (see `is_local`)."""
    if not is_local(text):
        return text
    path = expand_path(text, problem_file)
    if not path.is_dir():
        raise InputError(f"{path}: no such directory; {problem_file} names it as {text!r}")
    return str(path)


def _chain(path: Path, workspace: Workspace) -> list[YamlDocument]:
    """The file, the one it extends, and so on."""
    documents = [read_yaml(path)]
    seen = [path.resolve()]
    while (name := documents[-1].values.get("extends")) is not None:
        document = documents[-1]
        place = f"{document.path}, line {document.lines[('extends',)]}, extends"
        # A name and nothing else, so that no path outside the problem folders can be reached.
        check_name(name, place)
        parent = _parent(name, document.path, workspace, place)
        if parent.resolve() in seen:
            names = " → ".join(p.stem for p in [*seen, parent])
            raise InputError(f"{place}: goes in a circle ({names}); delete one `extends`")
        seen.append(parent.resolve())
        documents.append(read_yaml(parent))
    return documents


def _parent(name: str, child: Path, workspace: Workspace, place: str) -> Path:
    """The file beside the child, else the one of that name among all problems."""
    beside = child.parent / f"{name}.yaml"
    if beside.is_file():
        return beside
    problems = find_problems(workspace)
    if name not in problems:
        raise InputError(
            f"{place}: no problem is named {name!r} ({nearest(name, problems)}); rename it there"
        )
    return problems[name]


def check_name(name: object, place: str) -> None:
    """InputError, beginning with `place`, unless `name` may be a problem's name."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError(
            f"{place}: {name!r} is no problem name; use lower-case letters, digits, - and _, "
            "a letter first, at most 64"
        )


if __name__ == "__main__":
    print(json.dumps(problem_json_schema(), indent=2, ensure_ascii=False))
