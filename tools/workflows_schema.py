"""What ComfyUI says about a node (``/object_info``), as the inputs that its page makes of it.

Standard library only.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["NodeSchema", "Slot", "read_schemas"]

_WIDGETS = {
    "INT": 0,
    "FLOAT": 0.0,
    "STRING": "",
    "BOOLEAN": False,
    "COLOR": "#ffffff",
    "COMBO": None,
    "LOAD_3D": "",  # the page puts its viewer's camera there
}
_DYNAMIC, _AUTOGROW = "COMFY_DYNAMICCOMBO_V3", "COMFY_AUTOGROW_V3"
_SEEDS = ("seed", "noise_seed")


@dataclass(frozen=True)
class Slot:
    """One input of a node.

    Attributes:
        name: in prompts.
        type: of what it takes.
        is_widget: it has a value of its own where nothing is linked.
        default: of the widget.
        optional: it may be left alone.
        label: in the page, where it is not the name.
        companions: values of further widgets that the page puts behind this one.
        in_prompt: it is a part of prompts, and not only of the page.
    """

    name: str
    type: str
    is_widget: bool = False
    default: Any = None
    optional: bool = False
    label: str = ""
    companions: tuple[Any, ...] = ()
    in_prompt: bool = True


@dataclass(frozen=True)
class NodeSchema:
    """A kind of node.

    Attributes:
        title: its name in the page.
        outputs: name and type of each.
        inputs: by name: what ComfyUI says, and whether it is optional.
    """

    title: str
    outputs: tuple[tuple[str, str], ...]
    inputs: Mapping[str, tuple[Any, bool]]

    def slots(self, values: Mapping[str, Any], linked: Sequence[str]) -> list[Slot]:
        """The inputs that it has with some values, which decide about those that come and go.

        Args:
            values: of widgets, by name.
            linked: names of inputs that something is connected to.

        Raises:
            ValueError: a value is none of the choices that decide about further inputs.
        """
        return list(_expand("", self.inputs, values, linked))


def read_schemas(object_info: Mapping[str, Any]) -> dict[str, NodeSchema]:
    """Read the answer of ``/object_info``."""
    return {
        name: NodeSchema(
            title=info["display_name"] or name,
            outputs=tuple(zip(info["output_name"], map(_type, info["output"]), strict=True)),
            inputs=_sections(info["input"]),
        )
        for name, info in object_info.items()
    }


def _sections(inputs: Mapping[str, Any]) -> dict[str, tuple[Any, bool]]:
    """Required inputs, then optional ones; hidden ones have no slot."""
    return {
        name: (spec, section == "optional")
        for section in ("required", "optional")
        for name, spec in inputs.get(section, {}).items()
    }


def _type(spec: Any) -> str:
    return "COMBO" if isinstance(spec, list) else str(spec)


def _expand(
    prefix: str,
    inputs: Mapping[str, tuple[Any, bool]],
    values: Mapping[str, Any],
    linked: Sequence[str],
) -> Iterator[Slot]:
    for short, (spec, optional) in inputs.items():
        name, kind = prefix + short, _type(spec[0])
        options = spec[1] if len(spec) > 1 else {}
        if kind == _DYNAMIC:
            choices = {choice["key"]: choice["inputs"] for choice in options["options"]}
            chosen = values.get(name, next(iter(choices)))
            if chosen not in choices:
                raise ValueError(f"{name} is {chosen!r}, expected one of {list(choices)}")
            yield Slot(name, kind, True, chosen, optional)
            yield from _expand(f"{name}.", _sections(choices[chosen]), values, linked)
        elif kind == _AUTOGROW:
            yield from _grown(name, options["template"], linked)
        elif kind in _WIDGETS and not options.get("forceInput"):
            yield Slot(name, kind, True, _default(spec), optional, "", _companions(name, options))
            if options.get("image_upload") or options.get("video_upload"):
                yield Slot("upload", "IMAGEUPLOAD", True, "image", in_prompt=False)  # a button
        else:
            yield Slot(name, kind, optional=optional)


def _grown(name: str, template: Mapping[str, Any], linked: Sequence[str]) -> Iterator[Slot]:
    """The linked inputs of a row that grows, and a spare one."""
    (spec, _), *_rest = _sections(template["input"]).values()
    prefix = template["prefix"]
    used = sum(entry.startswith(f"{name}.{prefix}") for entry in linked)
    for number in range(min(max(used + 1, template["min"]), template["max"])):
        label = f"{prefix}{number}"
        yield Slot(f"{name}.{label}", spec[0], optional=number >= template["min"], label=label)


def _default(spec: Sequence[Any]) -> Any:
    options = spec[1] if len(spec) > 1 else {}
    choices = spec[0] if isinstance(spec[0], list) else options.get("options")
    first = choices[0] if choices else _WIDGETS[_type(spec[0])]
    return options.get("default", first)


def _companions(name: str, options: Mapping[str, Any]) -> tuple[Any, ...]:
    if options.get("control_after_generate") or name.rpartition(".")[2] in _SEEDS:
        return ("fixed",)  # what happens to the number after a run
    return ()
