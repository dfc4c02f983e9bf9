"""A small client of ComfyUI's HTTP and websocket interface, for the demo and the tests."""

import json
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

__all__ = ["ComfyClient", "PromptError", "output_files", "referenced_inputs"]

Graph = dict[str, dict[str, Any]]
Event = Callable[[str, dict[str, Any]], None]
"""Called with the name and the data of every message about a running prompt."""

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_ENDINGS = frozenset({"execution_success", "execution_error", "execution_interrupted"})


class PromptError(RuntimeError):
    """ComfyUI refused a prompt, or a node of it failed.

    Attributes:
        details: what ComfyUI said, as it came.
    """

    def __init__(self, message: str, details: dict[str, Any]) -> None:
        super().__init__(message)
        self.details = details


def referenced_inputs(graph: Graph, folder: Path) -> list[Path]:
    """Return the files of a folder that a prompt names in its inputs."""
    values = [value for node in graph.values() for value in node["inputs"].values()]
    return [path for path in sorted(folder.iterdir()) if path.name in values]


_SUFFIXES_3D = (".ply", ".splat", ".spz", ".ksplat", ".glb")


def output_files(entry: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Yield every file that the nodes of a finished prompt report, in the order of the nodes.

    Of 3D files those that are saved, not those that a viewer shows.
    """
    stack: list[Any] = [entry.get("outputs", {})]
    while stack:
        item = stack.pop()
        if isinstance(item, dict) and "filename" in item:
            yield {key: str(item.get(key, "")) for key in ("filename", "subfolder", "type")}
        elif isinstance(item, dict):
            yield from _saved_3d(item.get("result"))
            stack.extend(reversed(list(item.values())))
        elif isinstance(item, list):
            stack.extend(reversed(item))


def _saved_3d(result: Any) -> Iterator[dict[str, str]]:
    """The file that a node for 3D reports: its path in the output folder, camera, and so on."""
    first = result[0] if isinstance(result, list) and result else None
    if isinstance(first, str) and first.endswith(_SUFFIXES_3D):
        subfolder, _, name = first.replace("\\", "/").rpartition("/")
        if not name.startswith("preview"):
            yield {"filename": name, "subfolder": subfolder, "type": "output"}


class ComfyClient:
    """Talks to one server.

    Args:
        url: its address, such as ``http://127.0.0.1:8188``.
        check_alive: called while waiting; raises when the server is known to be gone.
    """

    def __init__(self, url: str, check_alive: Callable[[], None] = lambda: None) -> None:
        self.url = url.rstrip("/")
        self.client_id = uuid.uuid4().hex
        self._check_alive = check_alive

    def get(self, path: str, **query: str) -> Any:
        """Return the JSON at a path."""
        return json.loads(self.get_bytes(path, **query))

    def get_bytes(self, path: str, **query: str) -> bytes:
        """Return what is at a path.

        Raises:
            urllib.error.HTTPError: there is nothing.
        """
        address = f"{self.url}{path}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
        return self._send(urllib.request.Request(address))

    def post(self, path: str, body: Any) -> Any:
        """Post JSON and return the JSON that comes back, if any."""
        data = json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path, data, {"Content-Type": "application/json"}, method="POST"
        )
        answer = self._send(request)
        return json.loads(answer) if answer.strip() else None

    def _send(self, request: urllib.request.Request) -> bytes:
        with _OPENER.open(request, timeout=60) as answer:
            return bytes(answer.read())

    def object_info(self) -> dict[str, Any]:
        """Return the description of every node, by its id."""
        return dict(self.get("/object_info"))

    def upload(self, path: Path, *, subfolder: str = "") -> str:
        """Upload a picture into the input folder and return the value for ``LoadImage``."""
        boundary = uuid.uuid4().hex
        fields = {"subfolder": subfolder, "type": "input", "overwrite": "true"}
        head = "".join(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in fields.items()
        )
        head += (
            f"--{boundary}\r\nContent-Disposition: form-data; "
            f'name="image"; filename="{path.name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        data = head.encode() + path.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        kind = f"multipart/form-data; boundary={boundary}"
        request = urllib.request.Request(
            f"{self.url}/upload/image", data, {"Content-Type": kind}, method="POST"
        )
        answer = json.loads(self._send(request))
        return "/".join(part for part in (answer["subfolder"], answer["name"]) if part)

    def view(self, file: dict[str, str]) -> bytes:
        """Return the content of a file that :func:`output_files` named."""
        return self.get_bytes("/view", **file)

    def queue(self, graph: Graph) -> str:
        """Queue a prompt and return its id.

        Raises:
            PromptError: ComfyUI refused it, or a part of it; the message names node and input.
        """
        try:
            answer = self.post("/prompt", {"prompt": graph, "client_id": self.client_id})
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            try:
                details = json.loads(text)
            except ValueError:
                details = {"error": {"message": f"HTTP {error.code}: {text[:500]}"}}
            raise PromptError(_refusal(graph, details), details) from error
        if answer["node_errors"]:
            raise PromptError(_refusal(graph, answer), answer)
        return str(answer["prompt_id"])

    def history(self, prompt_id: str) -> dict[str, Any] | None:
        """Return the record of a finished prompt, or None while it is not finished."""
        entry = self.get(f"/history/{prompt_id}").get(prompt_id)
        return None if entry is None else dict(entry)

    def wait(self, prompt_id: str, *, timeout: float = 600.0) -> dict[str, Any]:
        """Wait for a prompt to end, well or badly, and return its record.

        Raises:
            TimeoutError: it did not end in time.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            entry = self.history(prompt_id)
            if entry is not None:
                return entry
            self._check_alive()
            time.sleep(0.1)
        raise TimeoutError(f"prompt {prompt_id} did not end within {timeout:g} seconds")

    def run(
        self, graph: Graph, *, on_event: Event | None = None, timeout: float = 600.0
    ) -> dict[str, Any]:
        """Queue a prompt, wait for it, and return its record.

        Args:
            graph: the prompt in API form.
            on_event: told about progress on the way.
            timeout: the most seconds to wait.

        Raises:
            PromptError: it was refused, failed or was interrupted.
            TimeoutError: it did not end in time.
        """
        if on_event is None:
            entry = self.wait(self.queue(graph), timeout=timeout)
        else:
            entry = self._run_watched(graph, on_event, timeout)
        raise_for_failure(entry)
        return entry

    def _run_watched(self, graph: Graph, on_event: Event, timeout: float) -> dict[str, Any]:
        import websocket

        deadline = time.monotonic() + timeout
        address = f"ws{self.url.removeprefix('http')}/ws?clientId={self.client_id}"
        socket = websocket.create_connection(address, timeout=1.0, http_no_proxy=["*"])
        try:
            prompt_id = self.queue(graph)
            while time.monotonic() < deadline:
                try:
                    frame = socket.recv()
                except websocket.WebSocketTimeoutException:
                    if self.history(prompt_id) is not None:
                        break
                    self._check_alive()
                    continue
                # Binary frames are previews.
                message = json.loads(frame) if isinstance(frame, str) and frame else {}
                data = message.get("data") or {}
                if data.get("prompt_id") != prompt_id:
                    continue
                on_event(message["type"], data)
                if message["type"] in _ENDINGS:
                    break
        finally:
            socket.close()
        return self.wait(prompt_id, timeout=max(10.0, deadline - time.monotonic()))

    def interrupt(self) -> None:
        """Stop the prompt that is running."""
        self.post("/interrupt", {})


def raise_for_failure(entry: dict[str, Any]) -> None:
    """Raise PromptError if a record of the history tells of a failure."""
    status = entry["status"]
    if status["status_str"] == "success":
        return
    for name, data in status["messages"]:
        if name == "execution_error":
            message = f"{data['exception_type']}: {data['exception_message'].strip()}"
            trace = "".join(data.get("traceback", []))
            raise PromptError(
                f"node {data['node_id']} ({data['node_type']}): {message}\n{trace}", data
            )
        if name == "execution_interrupted":
            raise PromptError(f"interrupted at node {data['node_id']} ({data['node_type']})", data)
    raise PromptError(f"the prompt ended as {status['status_str']!r}", status)


def _refusal(graph: Graph, details: dict[str, Any]) -> str:
    """Put ComfyUI's reasons for refusing a prompt into lines."""
    lines = [str(details.get("error", {}).get("message", "a part of the prompt was refused"))]
    for node_id, node in details.get("node_errors", {}).items():
        kind = graph.get(node_id, {}).get("class_type", "?")
        lines += [
            f"node {node_id} ({kind}): {error['message']}: {error['details']}"
            for error in node["errors"]
        ]
    return "\n".join(lines)
