"""Read one YAML file strictly: values as a dictionary, and the line on which each key stands.

Strictly means YAML 1.2's core types (so `3e-3` is a number and `no` is text, unlike PyYAML's
default), no duplicate keys, no anchors and no tags: whatever could read as something else than
it looks is an `InputError`.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from panacea_lib.errors import InputError

KeyPath = tuple[str | int, ...]

_TAG = "tag:yaml.org,2002:"
_CORE_TYPES = {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?(0|[1-9][0-9]*)",
    "float": r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
    r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
}
_ALLOWED_TAGS = {_TAG + name for name in (*_CORE_TYPES, "str", "map", "seq")}


@dataclass(frozen=True)
class YamlDocument:
    """A parsed file. `lines` holds the 1-based line of every key and list entry."""

    path: Path
    values: dict[str, Any]
    lines: dict[KeyPath, int] = field(default_factory=dict)


class _CoreLoader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's types and without aliases."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's own class attribute)

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(
                problem="aliases (*name) are not read; write the value out", problem_mark=mark
            )
        return super().compose_node(parent, index)


for _name, _pattern in _CORE_TYPES.items():
    _CoreLoader.add_implicit_resolver(_TAG + _name, re.compile(rf"^(?:{_pattern})$"), None)


def read_yaml(path: Path) -> YamlDocument:
    """Read `path`; raise InputError if it cannot be read or is no mapping of plain values."""
    text = _read_text(path)
    try:
        loader = _CoreLoader(text)
        node = loader.get_single_node()
        if node is None:
            raise InputError(f"{path}: the file is empty; `panacea new NAME` prints a template")
        if not isinstance(node, yaml.MappingNode):
            raise InputError(f"{path}, line 1: this is no mapping; write `key: value` lines")
        lines: dict[KeyPath, int] = {}
        _check_node(path, node, (), lines)
        values = loader.construct_document(node)
    except yaml.YAMLError as error:
        raise InputError(f"{path}{_where(error)}: this is not YAML: {_what(error)}") from error
    except RecursionError as error:
        raise InputError(f"{path}: nested too deeply; flatten it") from error
    return YamlDocument(path, values, lines)


def _read_text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise InputError(
            f"{path}, line {line}: byte 0x{raw[error.start]:02x} is not UTF-8; "
            "save the file as UTF-8"
        ) from error


def _check_node(path: Path, node: yaml.Node, at: KeyPath, lines: dict[KeyPath, int]) -> None:
    """Refuse tags, keys that are no text and duplicate keys; note the line of everything else."""
    line = node.start_mark.line + 1
    pattern = _CORE_TYPES.get(node.tag.removeprefix(_TAG))
    # A tag that the value's look does not give was written out: `!!int seven`, `!!python/...`.
    explicit = pattern is not None and not re.fullmatch(pattern, str(node.value))
    if node.tag not in _ALLOWED_TAGS or explicit:
        raise InputError(f"{path}, line {line}: the tag {node.tag!r} is not read; delete it")
    if isinstance(node, yaml.SequenceNode):
        for index, entry in enumerate(node.value):
            lines[(*at, index)] = entry.start_mark.line + 1
            _check_node(path, entry, (*at, index), lines)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            key_line = key.start_mark.line + 1
            if key.tag != _TAG + "str":
                shown = repr(key.value) if isinstance(key, yaml.ScalarNode) else "this key"
                raise InputError(
                    f"{path}, line {key_line}: a key must be text, and {shown} is none; "
                    "put it in quotes"
                )
            child = (*at, key.value)
            if child in lines:
                raise InputError(
                    f"{path}, line {key_line}, {dotted(child)}: this key stands already on line "
                    f"{lines[child]}; delete one of the two"
                )
            lines[child] = key_line
            _check_node(path, value, child, lines)


def dotted(key_path: KeyPath) -> str:
    """`("dimensions", 0, "name")` → `dimensions[0].name`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key_path)
    return text.removeprefix(".")


def _where(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""


def _what(error: yaml.YAMLError) -> str:
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    hint = "; indent with spaces" if "'\\t'" in problem else "; mend or quote it there"
    return problem if ";" in problem else problem + hint
