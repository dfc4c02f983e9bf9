"""Workflows from one description each: the graph that ComfyUI's page opens, and the API prompt.

What a node's inputs are called and in which order come from ComfyUI itself (``/object_info``), so
neither form can drift from the nodes, nor from the other. Standard library only.
"""

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from .workflows_schema import NodeSchema, Slot

__all__ = ["Group", "Link", "Node", "Workflow", "WorkflowError"]

Graph = dict[str, dict[str, Any]]
Schemas = dict[str, NodeSchema]
Box = tuple[int, int, int, int]
"""Left, top, width, height on the canvas; a node's title is above its box."""

COLOURS = {"blue": "#3f789e", "green": "#8A8", "yellow": "#b58b2a", "purple": "#a1309b"}

NOTE = "MarkdownNote"
_NOTE_COLOURS = {"color": "#432", "bgcolor": "#653"}
_OPTIONAL_SHAPE = 7  # LiteGraph draws the sockets of optional inputs hollow
_TITLE = 30
_GROUP_TITLE = 44
_PADDING = 24
_GAP = 28  # between nodes, besides a node's title
_COLUMN_GAP = 48  # room for the links between nodes
_SLOT_HEIGHT, _WIDGET_HEIGHT, _NODE_REST = 20, 24, 14  # LiteGraph's own
_VIEW, _VIEW_MARGIN = (1780, 900), (90, 110)  # of the page on a usual screen, in its pixels
_SMALLEST_SCALE = 0.6  # LiteGraph hides the text of nodes below 0.57


class WorkflowError(ValueError):
    """A description does not fit the nodes that ComfyUI has."""


@dataclass(frozen=True)
class Link:
    """One output of a node, to be given to an input of another.

    Attributes:
        node: where it comes from.
        output: its name.
    """

    node: "Node"
    output: str


@dataclass(eq=False)
class Node:
    """A node and where it stands in its group.

    Attributes:
        kind: the node's id in ComfyUI.
        inputs: values and links by name; widgets that are left out have their defaults.
        title: above the node; None for the node's own.
        column: which column of the group, from the left.
        row: which row of the group; nodes of one row and column stand on each other.
        width: on the canvas.
        room: height below the widgets for a picture, a video or text.
        collapsed: only the title is shown.
        id: within the workflow, from 1.
    """

    kind: str
    inputs: dict[str, Any]
    title: str | None = None
    column: int = 0
    row: int = 0
    width: int = 260
    room: int = 0
    collapsed: bool = False
    id: int = 0

    def __getitem__(self, output: str) -> Link:
        return Link(self, output)

    def slots(self, schemas: Schemas) -> list[Slot]:
        """The inputs it has with its values; a note has none."""
        if self.kind == NOTE:
            return []
        given = [name for name, value in self.inputs.items() if isinstance(value, Link)]
        try:
            slots = schemas[self.kind].slots(self.inputs, given)
        except KeyError as error:
            raise WorkflowError(f"ComfyUI has no node {self.kind!r}") from error
        except ValueError as error:
            raise WorkflowError(f"{self.kind}: {error}") from error
        unknown = set(self.inputs) - {slot.name for slot in slots}
        if unknown:
            raise WorkflowError(f"{self.kind} has no input {', '.join(sorted(unknown))}")
        return slots

    def height(self, schemas: Schemas) -> int:
        """On the canvas, without the title."""
        if self.kind == NOTE:
            return self.room
        slots = self.slots(schemas)
        sockets = sum(not slot.is_widget for slot in slots)
        widgets = sum(1 + len(slot.companions) for slot in slots if slot.is_widget)
        rows = max(sockets, len(schemas[self.kind].outputs))
        return rows * _SLOT_HEIGHT + widgets * _WIDGET_HEIGHT + _NODE_REST + self.room


@dataclass(eq=False)
class Group:
    """Nodes under one title.

    Attributes:
        title: above the nodes; None draws no frame.
        column: which column of the canvas, from the left; groups of one column stand on each other.
        colour: a name in `COLOURS`.
        nodes: what is in it, in the order of the ids.
    """

    title: str | None
    column: int
    colour: str = "blue"
    nodes: list[Node] = field(default_factory=list)

    def cell(self, row: int, column: int) -> list[Node]:
        """Its nodes in one row and column."""
        return [node for node in self.nodes if (node.row, node.column) == (row, column)]


@dataclass(eq=False)
class Workflow:
    """A workflow: nodes in groups.

    Attributes:
        name: of its files.
        shows: one sentence for the table of workflows.
        needs: which models it needs, for the same table.
        picture: title of the node whose picture or video is the thumbnail; None for all previews
            together.
        groups: from left to right, from top to bottom.
    """

    name: str
    shows: str
    needs: str = "none: genxd-nano is built in"
    picture: str | None = "Contact sheet"
    groups: list[Group] = field(default_factory=list)

    def group(self, title: str, column: int, *, colour: str = "blue") -> Group:
        """Add a group."""
        self.groups.append(Group(title, column, colour))
        return self.groups[-1]

    def note(self, text: str, column: int, *, width: int = 308, height: int = 300) -> None:
        """Add a note in Markdown."""
        self.groups.append(Group(None, column))
        self.add(self.groups[-1], NOTE, {"": text}, title="Note", width=width, room=height)

    def add(self, group: Group, kind: str, inputs: dict[str, Any], **options: Any) -> Node:
        """Add a node to a group; ``options`` are those of `Node`."""
        node = Node(kind, inputs, **options, id=1 + sum(len(g.nodes) for g in self.groups))
        group.nodes.append(node)
        return node

    def nodes(self) -> list[Node]:
        """All nodes by their ids."""
        return sorted((node for group in self.groups for node in group.nodes), key=lambda n: n.id)

    def title(self, node: Node, schemas: Schemas) -> str:
        """What stands above a node."""
        return node.title or schemas[node.kind].title

    def api(self, schemas: Schemas) -> Graph:
        """The API prompt, as the page would make it of the graph."""
        prompt: Graph = {}
        for node in self.nodes():
            if node.kind == NOTE:
                continue
            widgets, links = {}, {}
            for slot in node.slots(schemas):
                value = node.inputs.get(slot.name, slot.default)
                if isinstance(value, Link):
                    links[slot.name] = [str(value.node.id), _output_slot(value, slot, schemas)]
                elif slot.is_widget and slot.in_prompt:
                    widgets[slot.name] = value
            prompt[str(node.id)] = {
                "inputs": widgets | links,
                "class_type": node.kind,
                "_meta": {"title": self.title(node, schemas)},
            }
        return prompt

    def ui(self, schemas: Schemas) -> dict[str, Any]:
        """The graph, as the page saves it."""
        boxes, frames = self._layout(schemas)
        links = list(self._links(schemas))
        nodes = [
            _ui_node(node, order, boxes[node], links, schemas)
            for order, node in enumerate(self.nodes())
        ]
        return {
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"genxd/workflows/{self.name}")),
            "revision": 0,
            "last_node_id": len(nodes),
            "last_link_id": len(links),
            "nodes": nodes,
            "links": links,
            "groups": [_ui_group(number, *frame) for number, frame in enumerate(frames, 1)],
            "config": {},
            "extra": {"ds": _view(boxes.values())},
            "version": 0.4,
        }

    def _links(self, schemas: Schemas) -> Iterator[list[Any]]:
        number = 0
        for node in self.nodes():
            for position, slot in enumerate(_in_page_order(node.slots(schemas))):
                value = node.inputs.get(slot.name)
                if isinstance(value, Link):
                    number += 1
                    start = [value.node.id, _output_slot(value, slot, schemas)]
                    kind = schemas[value.node.kind].outputs[start[1]][1]
                    yield [number, *start, node.id, position, kind]

    def _layout(self, schemas: Schemas) -> tuple[dict[Node, Box], list[tuple[Group, Box]]]:
        boxes: dict[Node, Box] = {}
        frames = []
        left = 0
        for column in sorted({group.column for group in self.groups}):
            right, top = left, 0
            for group in self.groups:
                if group.column != column:
                    continue
                frame = _place(group, left, top, schemas, boxes)
                if group.title is not None:
                    frames.append((group, frame))
                right, top = max(right, frame[0] + frame[2]), top + frame[3] + _GAP
            left = right + _COLUMN_GAP
        return boxes, frames


def _place(group: Group, left: int, top: int, schemas: Schemas, boxes: dict[Node, Box]) -> Box:
    """Give every node of a group its box, and return that of the group."""
    padding, title = (_PADDING, _GROUP_TITLE) if group.title is not None else (0, 0)
    widths = [
        max((node.width for node in group.nodes if node.column == column), default=0)
        for column in range(1 + max(node.column for node in group.nodes))
    ]
    y = top + title
    for row in range(1 + max(node.row for node in group.nodes)):
        x, below = left + padding, y
        for column, width in enumerate(widths):
            at = y
            for node in group.cell(row, column):
                height = node.height(schemas)
                boxes[node] = (x, at + _TITLE, node.width, height)
                at += _TITLE + (0 if node.collapsed else height) + _GAP
            x, below = x + width + _COLUMN_GAP, max(below, at)
        y = below
    width = sum(widths) + (len(widths) - 1) * _COLUMN_GAP + 2 * padding
    return left, top, width, y - _GAP + padding - top


def _view(boxes: Iterable[Box]) -> dict[str, Any]:
    """Where the page looks when it opens the graph: all of it, if that can be read."""
    corners = [(x + width, y + height) for x, y, width, height in boxes]
    width, height = max(x for x, _ in corners), max(y for _, y in corners)
    scale = min(1.0, max(_SMALLEST_SCALE, min(_VIEW[0] / width, _VIEW[1] / height)))
    offset = [round(margin / scale) for margin in _VIEW_MARGIN]
    return {"scale": round(scale, 3), "offset": offset}


def _output_slot(link: Link, slot: Slot, schemas: Schemas) -> int:
    outputs = schemas[link.node.kind].outputs
    names = [name for name, _ in outputs]
    if link.output not in names:
        raise WorkflowError(f"{link.node.kind} has no output {link.output!r}, but {names}")
    number = names.index(link.output)
    if "*" not in (slot.type, outputs[number][1]) and outputs[number][1] not in slot.type.split(
        ","
    ):
        raise WorkflowError(
            f"output {link.output!r} of {link.node.kind} is {outputs[number][1]}, "
            f"but input {slot.name!r} takes {slot.type}"
        )
    return number


def _in_page_order(slots: list[Slot]) -> list[Slot]:
    """As the page lists inputs: sockets, then widgets with the inputs that hang on them."""
    widgets = {slot.name for slot in slots if slot.is_widget}
    return sorted(slots, key=lambda s: s.is_widget or s.name.rpartition(".")[0] in widgets)


def _ui_node(
    node: Node, order: int, box: Box, links: list[list[Any]], schemas: Schemas
) -> dict[str, Any]:
    note = node.kind == NOTE
    slots = node.slots(schemas)
    values = [node.inputs[""]] if note else []
    for slot in slots:
        if slot.is_widget:
            value = node.inputs.get(slot.name, slot.default)
            values += [slot.default if isinstance(value, Link) else value, *slot.companions]
    entry: dict[str, Any] = {
        "id": node.id,
        "type": node.kind,
        "pos": list(box[:2]),
        "size": list(box[2:]),
        "flags": {"collapsed": True} if node.collapsed else {},
        "order": order,
        "mode": 0,
        "inputs": [
            _ui_input(slot, node, position, links)
            for position, slot in enumerate(_in_page_order(slots))
        ],
        "outputs": [] if note else _ui_outputs(node, links, schemas),
        "properties": {} if note else {"Node name for S&R": node.kind},
        "widgets_values": values,
    }
    if node.title is not None:
        entry["title"] = node.title
    return entry | (_NOTE_COLOURS if note else {})


def _ui_input(slot: Slot, node: Node, position: int, links: list[list[Any]]) -> dict[str, Any]:
    entry: dict[str, Any] = {"localized_name": slot.name, "name": slot.name, "type": slot.type}
    if slot.label:
        entry["label"] = slot.label
    if slot.optional and not slot.is_widget:
        entry["shape"] = _OPTIONAL_SHAPE
    if slot.is_widget:
        entry["widget"] = {"name": slot.name}
    entry["link"] = next((i[0] for i in links if i[3:5] == [node.id, position]), None)
    return entry


def _ui_outputs(node: Node, links: list[list[Any]], schemas: Schemas) -> list[dict[str, Any]]:
    return [
        {
            "localized_name": name,
            "name": name,
            "type": kind,
            "links": [i[0] for i in links if i[1:3] == [node.id, number]] or None,
        }
        for number, (name, kind) in enumerate(schemas[node.kind].outputs)
    ]


def _ui_group(number: int, group: Group, box: Box) -> dict[str, Any]:
    return {
        "id": number,
        "title": group.title,
        "bounding": list(box),
        "color": COLOURS[group.colour],
        "font_size": 24,
        "flags": {},
    }
