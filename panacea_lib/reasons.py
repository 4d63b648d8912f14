"""Why a product is made: what differs between what it follows from and what the last one did."""

import json
import re
from collections.abc import Mapping
from typing import Any

_KEY = re.compile(r"[0-9a-f]{32}")
_DIGEST = re.compile(r"[0-9a-f]{40,}")  # a file's, or several
_SHOWN = 6  # differences in one sentence
_LONGEST = 40  # characters of a value
_ABSENT = object()


def why(content: Mapping[str, Any], before: Mapping[str, Any]) -> str:
    """What changed from `before` to `content` (two of `Plan.content`), in one sentence.

    Inputs are named as the content names them: `labels.helpfulness changed` says that those labels
    have another key, whose own reason says why.
    """
    new, old = _flat(_as_json(content)), _flat(_as_json(before))
    paths = [
        path for path in {**old, **new} if _differ(new.get(path, _ABSENT), old.get(path, _ABSENT))
    ]
    told = list(dict.fromkeys(_told(_whole(path, old, new), old, new) for path in paths))
    if not told:
        return "nothing that it follows from changed"
    more = f"; and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
    return "; ".join(told[:_SHOWN]) + more


def _whole(path: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The outermost section around `path` that only one of the two has; `path` itself, if none."""
    parts = path.split(".")
    around = [".".join(parts[:n]) for n in range(1, len(parts))]
    return next((s for s in around if not (_within(s, old) and _within(s, new))), path)


def _within(section: str, flat: Mapping[str, Any]) -> bool:
    return any(f"{path}.".startswith(f"{section}.") for path in flat)


def _told(path: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    a, b = old.get(path, _ABSENT), new.get(path, _ABSENT)
    name = ".".join(p for p in path.split(".") if p != "is" and not p.isdigit()) or path
    name = {"version": "version of the stage's code"}.get(name, name.removeprefix("libraries."))
    hashed = any(_is_hash(value) for value in (a, b))
    if a is b is _ABSENT:  # a section
        return f"{name} is new" if _within(path, new) else f"{name} is gone"
    if a is _ABSENT:
        return f"{name} is new" if hashed else f"{name} is new: {_short(b)}"
    if b is _ABSENT:
        return f"{name} is gone"
    return f"{name} changed" if hashed else f"{name}: {_short(a)} → {_short(b)}"


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Dotted path → value, of nested mappings and lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found: dict[str, Any] = {}
    for key, inner in items:
        place = f"{path}.{key}" if path else str(key)
        found |= _flat(inner, place) if isinstance(inner, dict | list) else {place: inner}
    return found


def _differ(a: Any, b: Any) -> bool:
    """As JSON has them, and so the key: 1, 1.0 and true are three values."""
    return a != b or type(a) is not type(b)


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and bool(_KEY.fullmatch(value) or _DIGEST.search(value))


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _as_json(content: Mapping[str, Any]) -> Any:
    """As it is after it was stored, so that a tuple equals its list."""
    return json.loads(json.dumps(content))
