"""Single settings of a run, by name: ``optim.lr=1e-4``, ``data.sources.co3d.root=/data/co3d``."""

import dataclasses
import json
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from genxd_core.errors import InvalidInputError

__all__ = ["apply_settings", "differences", "to_record"]

_Config = TypeVar("_Config")


def apply_settings(config: _Config, settings: Sequence[str]) -> _Config:
    """Replace fields of a configuration.

    Args:
        config: a dataclass of dataclasses.
        settings: ``name=value`` each. Names are joined by dots; entries of a tuple of named things
            (the sources) go by their name. Values are JSON, or text where that is no JSON.

    Raises:
        InvalidInputError: there is no such field, its type does not take the value, or the whole
            does not fit together.
    """
    parsed = []
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise InvalidInputError(
                f"--set got {setting!r}, expected name=value, such as optim.lr=1e-4."
            )
        parsed.append(_Setting(tuple(name.strip().split(".")), text, name.strip()))
    return _replaced(config, parsed) if parsed else config


@dataclasses.dataclass(frozen=True)
class _Setting:
    """What is left of a name on the way down, the value's text, and the whole name."""

    path: tuple[str, ...]
    text: str
    full: str

    def below(self) -> "_Setting":
        return dataclasses.replace(self, path=self.path[1:])


def _replaced(config: Any, settings: Sequence[_Setting]) -> Any:
    # Together, as a whole that fits may be reached through one that does not.
    names = [field.name for field in dataclasses.fields(config)]
    groups: dict[str, list[_Setting]] = {}
    for setting in settings:
        head = setting.path[0]
        if head not in names:
            raise InvalidInputError(
                f"--set {setting.full}: {head!r} is no field; expected one of {', '.join(names)}."
            )
        groups.setdefault(head, []).append(setting.below())
    kinds = typing.get_type_hints(type(config))
    changes = {
        head: _changed(kinds[head], getattr(config, head), group) for head, group in groups.items()
    }
    return dataclasses.replace(config, **changes)


def _changed(kind: Any, value: Any, settings: Sequence[_Setting]) -> Any:
    """A field's value after settings of it, or of what is in it, in their order."""
    inside: list[_Setting] = []
    for setting in settings:
        if setting.path:
            inside.append(setting)
        else:
            value, inside = _parsed(kind, setting.text, setting.full), []
    if not inside:
        return value
    if isinstance(value, dict):
        return value | {".".join(one.path): _json_or_text(one.text) for one in inside}
    if isinstance(value, tuple):
        return _replaced_by_name(value, inside)
    return _replaced(_made(value, kind, inside[0].full), inside)


def _made(value: Any, kind: Any, full: str) -> Any:
    """The value, or a default one where an optional part is absent."""
    if dataclasses.is_dataclass(value):
        return value
    for option in typing.get_args(kind):
        if dataclasses.is_dataclass(option) and isinstance(option, type):
            return option()
    raise InvalidInputError(f"--set {full}: what stands before the last dot has no fields.")


def _replaced_by_name(entries: tuple[Any, ...], settings: Sequence[_Setting]) -> tuple[Any, ...]:
    known = [getattr(entry, "name", None) for entry in entries]
    groups: dict[str, list[_Setting]] = {}
    for setting in settings:
        if setting.path[0] not in known or len(setting.path) < 2:
            raise InvalidInputError(
                f"--set {setting.full}: expected a name of {', '.join(map(str, known))} and then "
                "a field."
            )
        groups.setdefault(setting.path[0], []).append(setting.below())
    return tuple(
        _replaced(entry, groups[name]) if name in groups else entry
        for name, entry in zip(known, entries, strict=True)
    )


def _parsed(kind: Any, text: str, full: str) -> Any:
    try:
        return TypeAdapter(kind).validate_python(_json_or_text(text))
    except ValidationError as error:
        told = "; ".join(sorted({problem["msg"] for problem in error.errors()}))
        raise InvalidInputError(f"--set {full}: {text!r} is no {_told(kind)} ({told}).") from error


def _told(kind: Any) -> str:
    if isinstance(kind, types.UnionType):
        return " or ".join(_told(option) for option in typing.get_args(kind))
    return str(kind).replace("typing.", "") if typing.get_origin(kind) else kind.__name__


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def to_record(config: Any) -> Any:
    """A configuration as JSON has it: dicts, lists, texts, numbers."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        fields = dataclasses.fields(config)
        return {field.name: to_record(getattr(config, field.name)) for field in fields}
    if isinstance(config, dict):
        return {str(key): to_record(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [to_record(value) for value in config]
    return config.as_posix() if isinstance(config, Path) else config


def differences(before: Any, after: Any, at: str = "") -> dict[str, tuple[Any, Any]]:
    """The leaves in which two records differ, by dotted name: what was, and what is."""
    if isinstance(before, dict) and isinstance(after, dict):
        found: dict[str, tuple[Any, Any]] = {}
        for key in sorted({*before, *after}):
            below = f"{at}.{key}" if at else key
            found |= differences(before.get(key), after.get(key), below)
        return found
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        found = {}
        for place, (one, other) in enumerate(zip(before, after, strict=True)):
            name = one.get("name", place) if isinstance(one, dict) else place
            found |= differences(one, other, f"{at}.{name}")
        return found
    return {} if before == after else {at: (before, after)}
