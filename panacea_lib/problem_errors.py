"""What pydantic says of a bad problem, told in sentences a user can act on."""

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from panacea_lib.problem import Problem
from panacea_lib.problem_yaml import KeyPath, YamlDocument, dotted

_DISCRIMINATORS = ("kind", "layout")


def explain(
    error: ValidationError, values: dict[str, Any], documents: Sequence[YamlDocument]
) -> str:
    """One line per mistake: file, line, key, what is wrong, what to do.

    `documents` are the problem's file and then the files it extends, nearest first; a mistake is
    reported in the first one that has the key.
    """
    # Where a key is unknown, a "missing" beside it is usually the same typo: name the typo first.
    details = sorted(error.errors(), key=lambda detail: detail["type"] != "extra_forbidden")
    return "\n".join(_sentence(detail, values, documents) for detail in details)


def nearest(word: str, known: Iterable[str]) -> str:
    """`did you mean 'steps'?`, or the known words where none is near."""
    names = list(known)
    close = difflib.get_close_matches(word, names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(names)}"


def _sentence(
    detail: ErrorDetails, values: dict[str, Any], documents: Sequence[YamlDocument]
) -> str:
    kind, given = detail["type"], detail["input"]
    at = _key_path(detail, values)
    if kind == "extra_forbidden":
        known = _known_keys(detail["loc"][:-1])
        what = f"unknown key ({nearest(str(at[-1]), known)}); rename or delete it"
    elif kind == "missing":
        what = f"this key is missing; add it ({_describe(detail['loc'])})"
    elif kind in ("union_tag_invalid", "union_tag_not_found"):
        discriminator = detail.get("ctx", {})["discriminator"].strip("'")
        known = _tags(detail["loc"], discriminator)
        if "hub" in known:
            known.append("known")  # replaced by one of the others (panacea_lib.problem_known)
        tags = ", ".join(known)
        at = (*at, discriminator)
        shown = given.get(discriminator) if isinstance(given, dict) else None
        what = (
            f"this key is missing; set it to one of {tags}"
            if shown is None
            else f"must be one of {tags}, not {shown!r}; change it"
        )
    elif kind == "value_error":
        at, what = _own_message(at, str(detail.get("ctx", {})["error"]))
    else:
        rule = detail["msg"].replace("Input should be", "must be").replace("an object", "a mapping")
        shown = repr(given)
        what = f"{rule}, not {shown if len(shown) <= 60 else shown[:60] + '…'}; change it"
    return f"{place_of(at, documents)}: {what}"


def _own_message(at: KeyPath, message: str) -> tuple[KeyPath, str]:
    """Our validators begin with the key they speak of: `dimensions: unknown ['x']; …`."""
    key, _, what = message.partition(": ")
    return (*at, *key.split(".")), what


def place_of(at: KeyPath, documents: Sequence[YamlDocument]) -> str:
    """`file, line 12, training.steps`: the key's line, else that of the nearest key around it."""
    for end in range(len(at), 0, -1):
        for document in documents:
            if line := document.lines.get(at[:end]):
                return f"{document.path}, line {line}, {dotted(at)}"
    path: Path = documents[0].path
    return f"{path}, {dotted(at)}"


def _key_path(detail: ErrorDetails, values: dict[str, Any]) -> KeyPath:
    """The location in the file: pydantic's, less the tags it adds for unions and for keys."""
    path: list[str | int] = []
    here: Any = values
    for part in detail["loc"]:
        entries: Any = dict(enumerate(here)) if isinstance(here, list) else here
        if isinstance(entries, dict) and part in entries:
            path.append(part)
            here = entries[part]
    if detail["type"] == "missing":
        path.append(detail["loc"][-1])
    return tuple(path)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """All models that a field may hold, however deep in unions, lists and Annotated."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]


def _models_at(loc: Sequence[str | int]) -> list[type[BaseModel]]:
    models: list[type[BaseModel]] = [Problem]
    for part in loc:
        fields = [m.model_fields[part] for m in models if part in m.model_fields]
        if fields:
            models = [model for field in fields for model in _models_in(field.annotation)]
        elif tagged := [m for m in models if part in _own_tags(m)]:
            models = tagged
    return models


def _own_tags(model: type[BaseModel]) -> list[str]:
    """The values by which a union tells this model: `kind: file` → ["file"]."""
    annotations = [f.annotation for k, f in model.model_fields.items() if k in _DISCRIMINATORS]
    return [tag for a in annotations if get_origin(a) is Literal for tag in get_args(a)]


def _tags(loc: Sequence[str | int], discriminator: str) -> list[str]:
    models = [m for m in _models_at(loc) if discriminator in m.model_fields]
    return [tag for model in models for tag in _own_tags(model)]


def _known_keys(loc: Sequence[str | int]) -> list[str]:
    return list(dict.fromkeys(key for model in _models_at(loc) for key in model.model_fields))


def _describe(loc: Sequence[str | int]) -> str:
    """What the schema says of a missing key."""
    for model in _models_at(loc[:-1]):
        if field := model.model_fields.get(str(loc[-1])):
            return field.description or "`panacea new NAME` prints a template with every key"
    return "`panacea new NAME` prints a template with every key"
