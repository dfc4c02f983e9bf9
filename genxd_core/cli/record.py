"""What made the results of a command, as JSON beside them."""

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["write_record"]


def write_record(file: Path, command: "DataclassInstance", facts: Mapping[str, Any]) -> None:
    """Write versions, every option that has a value, and what is to be known besides.

    Args:
        file: to write.
        command: the command with its options.
        facts: by name, in values that JSON has.
    """
    import torch

    from .. import __version__

    options = {field.name: getattr(command, field.name) for field in fields(command)}
    record = {
        "versions": {"genxd": __version__, "torch": torch.__version__},
        "options": {name: _plain(value) for name, value in options.items() if value is not None},
        **facts,
    }
    file.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return value.as_posix() if isinstance(value, Path) else value
