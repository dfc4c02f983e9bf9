"""ComfyUI's executor in the process of the tests.

All of ComfyUI runs in one thread of its own: it uses ``asyncio.run``, which refuses to start where
a loop is running already, and the browser's driver keeps one running in the main thread.
"""

import asyncio
import copy
import importlib
import sys
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

Graph = dict[str, dict[str, Any]]
Event = Callable[[str, dict[str, Any]], None]
T = TypeVar("T")

CAPTURE = "GenXDTest_Capture"
VALUE = "GenXDTest_Value"


@dataclass
class Run:
    """What came of one graph.

    Attributes:
        captured: what reached the capture nodes, by their ``name``.
        ui: what each output node reported to the frontend, by node id.
        node_errors: why nodes were refused before the run, by node id.
        messages: what was sent to the frontend: names and data, in order.
    """

    captured: dict[str, Any] = field(default_factory=dict)
    ui: dict[str, Any] = field(default_factory=dict)
    node_errors: dict[str, Any] = field(default_factory=dict)
    messages: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    @property
    def error(self) -> str:
        """Why the run failed, with names of nodes; empty if it did not."""
        lines = [
            f"{node['class_type']} {node_id}: {reason['message']}: {reason['details']}"
            for node_id, node in self.node_errors.items()
            for reason in node["errors"]
        ]
        for name, data in self.messages:
            if name == "execution_error":
                trace = "".join(data["traceback"])
                lines.append(f"{data['node_type']}: {data['exception_message']}\n{trace}")
            if name == "execution_interrupted":
                lines.append(f"interrupted at {data['node_type']}")
            if name == "refused":
                lines.append(f"{data['message']}: {data['details']}")
        return "\n".join(lines)

    def told(self, name: str) -> list[dict[str, Any]]:
        """Return the data of every message of one name."""
        return [data for kind, data in self.messages if kind == name]


class Frontend:
    """The part of ComfyUI's server that its executor talks to."""

    def __init__(self) -> None:
        self.client_id = "tests"
        self.last_node_id = None
        self.last_prompt_id = None
        self.sockets_metadata: dict[str, Any] = {}
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.on_event: Event | None = None

    def send_sync(self, event: str, data: Any, sid: str | None = None) -> None:
        if isinstance(data, dict):  # anything else is a preview
            self.sent.append((event, data))
            if self.on_event is not None:
                self.on_event(event, data)


class Host:
    """ComfyUI with the pack, ready to run graphs.

    Attributes:
        nodes: ComfyUI's module of that name.
        pack: the pack's root module, as ComfyUI imported it.
        base: the base directory: models, input and output of this host.
    """

    def __init__(self, comfy_root: Path, base: Path, pack: Path, *, cpu: bool = True) -> None:
        self.base = base
        self._values: dict[str, Any] = {}
        self._captured: dict[str, Any] = {}
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="comfyui")
        self.nodes, self._execution = self.call(lambda: _import_comfy(comfy_root, base, cpu))
        self._frontend = Frontend()
        self._executor = self.call(self._make_executor)
        self.call(lambda: _hook_progress(self._frontend))
        self.call(lambda: _register(self._values, self._captured, self.nodes))
        self.load(pack)
        self.pack = _module_of(pack / "__init__.py")

    def call(self, function: Callable[[], T]) -> T:
        """Call something in ComfyUI's thread."""
        return self._thread.submit(function).result()

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()

    def module(self, name: str) -> ModuleType:
        """Return a module of the pack, such as ``"nodes.conditioning"`` or ``"genxd_core"``.

        ComfyUI imports the pack under a name of its own, with a copy of the core in it: the classes
        of the top-level ``genxd_core`` are others.
        """
        return importlib.import_module(f"{self.pack.__name__}.{name}")

    def load(self, path: Path) -> None:
        """Load a pack or a single file of nodes, as ComfyUI does at its start."""
        loaded = self.call(lambda: asyncio.run(self.nodes.load_custom_node(str(path))))
        assert loaded, f"ComfyUI could not load {path}; the reason is in the log above"

    def load_extras(self, *names: str) -> None:
        """Load files of ``comfy_extras``, such as ``"nodes_custom_sampler"``."""
        folder = Path(self.nodes.__file__).parent / "comfy_extras"
        for name in names:
            self.load(folder / f"{name}.py")

    def value(self, value: Any) -> dict[str, Any]:
        """Return a node for a graph that puts out any Python object, to be linked to any input."""
        name = uuid.uuid4().hex
        self._values[name] = value
        return {"class_type": VALUE, "inputs": {"name": name}}

    def capture(self, link: list[Any], name: str = "out") -> dict[str, Any]:
        """Return a node for a graph that keeps what reaches it; see :attr:`Run.captured`."""
        return {"class_type": CAPTURE, "inputs": {"value": link, "name": name}}

    def interrupt(self) -> None:
        """Ask the running graph to stop, as the button does; of use in ``on_event``."""
        self.nodes.interrupt_processing()

    def run(self, graph: Graph, *, check: bool = True, on_event: Event | None = None) -> Run:
        """Run a graph in API form.

        What is captured was made in torch's inference mode: clone a tensor before changing it.

        Args:
            graph: the nodes by id; not changed.
            check: fail the test when the graph is refused or a node fails.
            on_event: called with every message to the frontend, progress included.
        """
        self._frontend.on_event = on_event
        run = self.call(lambda: self._run(copy.deepcopy(graph)))
        assert not (check and run.error), run.error
        return run

    def run_node(self, class_type: str, **inputs: Any) -> tuple[Any, ...]:
        """Run one node on Python objects, through the executor, and return all its outputs.

        Literals (numbers, texts, booleans) are given as such, everything else through a link.
        """
        graph: Graph = {"node": {"class_type": class_type, "inputs": {}}}
        for name, value in inputs.items():
            if isinstance(value, int | float | str):
                graph["node"]["inputs"][name] = value
            else:
                graph[f"in-{name}"] = self.value(value)
                graph["node"]["inputs"][name] = [f"in-{name}", 0]
        count = len(self.nodes.NODE_CLASS_MAPPINGS[class_type].RETURN_TYPES)
        for slot in range(count):
            graph[f"out-{slot}"] = self.capture(["node", slot], str(slot))
        captured = self.run(graph).captured
        return tuple(captured[str(slot)] for slot in range(count))

    def _make_executor(self) -> Any:
        cache = {"lru": 0, "ram": 0, "ram_inactive": 0}
        classic = self._execution.CacheType.CLASSIC
        return self._execution.PromptExecutor(self._frontend, cache_type=classic, cache_args=cache)

    def _run(self, graph: Graph) -> Run:
        prompt_id = uuid.uuid4().hex
        self._captured.clear()
        self._frontend.sent.clear()
        checked = asyncio.run(self._execution.validate_prompt(prompt_id, graph, None))
        accepted, refusal, outputs, node_errors = checked
        run = Run(node_errors=node_errors)
        if not accepted:
            run.messages = [("refused", refusal)]
            return run
        self._executor.execute(graph, prompt_id, {"client_id": "tests"}, outputs)
        run.captured = dict(self._captured)
        run.ui = dict(self._executor.history_result["outputs"])
        run.messages = list(self._frontend.sent)
        return run


def _import_comfy(comfy_root: Path, base: Path, cpu: bool) -> tuple[ModuleType, ModuleType]:
    """Import ComfyUI with its own base directory, and set up what its nodes expect."""
    # First, so that its top-level names (nodes, server, utils) win over ours.
    sys.path.insert(0, str(comfy_root))
    cli_args = importlib.import_module("comfy.cli_args")
    cli_args.args.cpu = cpu
    cli_args.args.base_directory = str(base)
    nodes = importlib.import_module("nodes")
    execution = importlib.import_module("execution")
    server = importlib.import_module("server")

    async def make_server() -> None:
        server.PromptServer(asyncio.get_running_loop())

    asyncio.run(make_server())
    return nodes, execution


def _hook_progress(frontend: Frontend) -> None:
    """Report progress bars and text, and honour interrupts in bars, as ComfyUI's server does."""
    import server
    from comfy import model_management, utils

    def hook(value: int, total: int, preview: Any, node_id: str | None = None) -> None:
        model_management.throw_exception_if_processing_interrupted()
        frontend.send_sync("progress", {"value": value, "max": total, "node": node_id})

    def tell(text: str, node_id: str, sid: str | None = None) -> None:
        frontend.send_sync("progress_text", {"text": text, "node": node_id})

    utils.set_progress_bar_global_hook(hook)
    server.PromptServer.instance.send_progress_text = tell


def _module_of(file: Path) -> ModuleType:
    for module in list(sys.modules.values()):
        if getattr(module, "__file__", None) == str(file):
            return module
    raise AssertionError(f"ComfyUI imported no module from {file}")


def _register(values: dict[str, Any], captured: dict[str, Any], nodes: ModuleType) -> None:
    """Give ComfyUI two nodes that carry Python objects into a graph and out of it."""
    from comfy_api.latest import io

    class Value(io.ComfyNode):
        @classmethod
        def define_schema(cls) -> Any:
            return io.Schema(
                node_id=VALUE, inputs=[io.String.Input("name")], outputs=[io.AnyType.Output()]
            )

        @classmethod
        def execute(cls, name: str) -> Any:
            return io.NodeOutput(values[name])

    class Capture(io.ComfyNode):
        @classmethod
        def define_schema(cls) -> Any:
            inputs = [io.AnyType.Input("value"), io.String.Input("name")]
            return io.Schema(node_id=CAPTURE, inputs=inputs, outputs=[], is_output_node=True)

        @classmethod
        def fingerprint_inputs(cls, **_: Any) -> float:
            return float("nan")  # never taken from the cache

        @classmethod
        def execute(cls, value: Any, name: str) -> Any:
            captured[name] = value
            return io.NodeOutput()

    nodes.NODE_CLASS_MAPPINGS.update({VALUE: Value, CAPTURE: Capture})
