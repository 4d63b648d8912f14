"""What a problem takes over from another: mappings merged, paths kept where they were written."""

import os
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

from panacea_lib.problem_yaml import YamlDocument

# Told by these, a mapping of another kind takes over nothing of the old one.
_KINDS = ("kind", "layout")


def merge(parent: dict[str, Any], child: dict[str, Any]) -> dict[str, Any]:
    """Mappings are merged, anything else is replaced; so is a mapping of another kind."""
    merged = dict(parent)
    for key, value in child.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict) and not _differ(old, value):
            merged[key] = merge(old, value)
        else:
            merged[key] = value
    return merged


def anchored(document: YamlDocument, folder: Path) -> dict[str, Any]:
    """The file's values; relative paths made absolute if they would be read from elsewhere."""
    own_folder = document.path.resolve().parent
    if own_folder == folder:
        return document.values
    values = deepcopy(document.values)
    for section, key in _paths(values):
        text = section.get(key)
        if not isinstance(text, str) or text.startswith(("/", "~", "${")):
            continue
        if key == "path" or is_local(text):
            section[key] = os.path.normpath(own_folder / text)
    return values


def is_local(text: str) -> bool:
    """Whether `base_model.model` or `data.dataset` names a directory, not something on the hub."""
    return text.startswith(("/", ".", "~", "${"))


def _paths(values: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Where a path may stand: (a section, its key)."""
    data, base, rewards = (values.get(name) for name in ("data", "base_model", "rewards"))
    listed = [data.get(key) for key in ("parts", "files")] if isinstance(data, dict) else []
    parts = [part for parts in listed if isinstance(parts, list) for part in parts]
    for section in (data, *parts):
        if isinstance(section, dict):
            yield section, "path"
            yield section, "dataset"
    rewarding = rewards.get("model") if isinstance(rewards, dict) else None
    for section in (base, rewarding):
        if isinstance(section, dict):
            yield section, "model"
    labels = values.get("labels")
    for sources in labels.values() if isinstance(labels, dict) else ():
        for source in sources if isinstance(sources, list) else ():
            if isinstance(source, dict):
                yield source, "path"
                yield source, "model"


def _differ(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """`kind: file` over `kind: world`: the old keys mean nothing under the new kind."""
    kinds = (*_KINDS, "name") if old.get("kind") == "known" else _KINDS
    return any(new.get(key, old.get(key)) != old.get(key) for key in kinds)
