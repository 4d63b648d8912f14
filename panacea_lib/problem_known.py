"""Known data sets: column mappings that are ready, one file each in assets_data/datasets.

`kind: known` in a problem names one; before the problem is checked it is replaced by what the file
says, with the problem's own keys on top (a `path` to a local copy, a `limit`, other columns), and
without the dimensions that the problem does not have.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from panacea_lib.errors import InputError
from panacea_lib.problem_errors import nearest, place_of
from panacea_lib.problem_merge import merge
from panacea_lib.problem_yaml import KeyPath, YamlDocument, read_yaml
from panacea_lib.workspace import PROJECT_ROOT

_FOLDER = PROJECT_ROOT / "assets_data" / "datasets"
_HUB_KEYS = ("dataset", "revision", "subset", "data_dir", "hub_split")
_MAPPINGS = ("labels", "scores")  # of columns: per dimension


@dataclass(frozen=True)
class KnownDataset:
    """A data set that somebody has published, and how its columns are read."""

    name: str
    link: str
    license: str
    data: dict[str, Any]

    @property
    def dimensions(self) -> list[str]:
        """What it may label, or show."""
        if parts := self.data.get("parts"):
            found = [d for part in parts for d in known_datasets()[part["name"]].dimensions]
            return list(dict.fromkeys(found))
        columns = self.data["columns"]
        if "dimension" in columns:
            return [columns["dimension"]]
        return [name for key in _MAPPINGS for name in columns.get(key, {})]


@cache
def known_datasets() -> dict[str, KnownDataset]:
    """All known data sets by name."""
    files = sorted(_FOLDER.glob("*.yaml"), key=lambda path: path.stem)
    return {path.stem: KnownDataset(path.stem, **read_yaml(path).values) for path in files}


def expand_known(values: dict[str, Any], documents: Sequence[YamlDocument]) -> dict[str, Any]:
    """A problem's values with every `kind: known` replaced; `documents` are for errors.

    InputError: no such data set, or keys of its own for one that is several.
    """
    data = values.get("data")
    if not isinstance(data, dict):
        return values
    listed = values.get("dimensions")
    named = [d for d in listed if isinstance(d, dict)] if isinstance(listed, list) else []
    names = [str(dimension.get("name")) for dimension in named]
    if data.get("kind") == "known":
        return {**values, "data": _expanded(data, ("data",), names, documents)}
    parts = data.get("parts")
    if data.get("kind") != "several" or not isinstance(parts, list):
        return values
    found = []
    for i, part in enumerate(parts):
        if isinstance(part, dict) and part.get("kind") == "known":
            part = _expanded(part, ("data", "parts", i), names, documents)
        found += part["parts"] if isinstance(part, dict) and "parts" in part else [part]
    return {**values, "data": {**data, "parts": found}}


def _expanded(
    section: dict[str, Any], at: KeyPath, names: list[str], documents: Sequence[YamlDocument]
) -> dict[str, Any]:
    known, name = known_datasets(), section.get("name")
    if name not in known:
        raise InputError(
            f"{place_of((*at, 'name'), documents)}: no known data set is named {name!r} "
            f"({nearest(str(name), known)}); `panacea datasets` lists them"
        )
    own = {key: value for key, value in section.items() if key not in ("kind", "name")}
    data = {"license": known[name].license, **known[name].data}
    if "parts" in data:
        if extra := [key for key in own if key != "split"]:
            wanted = ", ".join(part["name"] for part in data["parts"])
            raise InputError(
                f"{place_of((*at, extra[0]), documents)}: {name} is several data sets ({wanted}); "
                "write `kind: several` with these as parts, and give the key to one of them"
            )
        parts = [_expanded(part, at, names, documents) for part in data["parts"]]
        return {**data, **own, "parts": parts}
    if "path" in own:
        data = {key: value for key, value in data.items() if key not in _HUB_KEYS}
        data["kind"] = "file"
    data = merge({**data, "name": name}, own)
    return {**data, "columns": _without_others(data["columns"], names)}


def _without_others(columns: Any, names: list[str]) -> Any:
    """The columns less the labels and scores of dimensions that the problem does not name."""
    if not isinstance(columns, dict):
        return columns
    return {
        key: {d: c for d, c in value.items() if d in names}
        if key in _MAPPINGS and isinstance(value, dict)
        else value
        for key, value in columns.items()
    }
