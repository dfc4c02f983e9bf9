"""A small Hugging Face Hub on the loopback interface, which can be told to misbehave."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["MODEL_FILES", "FakeHub", "serve_hub"]

MODEL_FILES = {
    "unet/config.json": b'{"unet": 1}',
    "unet/diffusion_pytorch_model.safetensors": bytes(range(256)) * 1200,
    "vae/config.json": b'{"vae": 1}',
    "vae/diffusion_pytorch_model.safetensors": bytes(reversed(range(256))) * 40,
    "scheduler/scheduler_config.json": b"{}",
    "README.md": b"# terms",
    "unet/diffusion_pytorch_model.bin": b"a pickle",
}


@dataclass
class FakeHub:
    """What the server holds and how it behaves.

    Attributes:
        files: path to content.
        announced: checksums that it announces in place of the right ones.
        break_after: bytes after which it drops the connection, by request number from 1.
        ranges: whether it knows Range requests.
        status: answer every file with this status.
        seen: path and Range header of every request for a file.
    """

    files: dict[str, bytes] = field(default_factory=lambda: dict(MODEL_FILES))
    announced: dict[str, str] = field(default_factory=dict)
    break_after: dict[int, int] = field(default_factory=dict)
    ranges: bool = True
    status: int = 200
    seen: list[tuple[str, str | None]] = field(default_factory=list)
    address: str = ""

    def tree(self) -> list[dict[str, Any]]:
        """What the Hub's interface answers: git's hash of small files, SHA-256 of large ones."""
        entries: list[dict[str, Any]] = [{"type": "directory", "path": "unet", "oid": "0" * 40}]
        for path, content in self.files.items():
            blob = b"blob %d\0" % len(content) + content
            entry = {"type": "file", "path": path, "size": len(content)}
            entry["oid"] = hashlib.sha1(blob).hexdigest()
            if path.endswith((".safetensors", ".bin")):
                sha256 = self.announced.get(path, hashlib.sha256(content).hexdigest())
                entry["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 134}
            elif path in self.announced:
                entry["oid"] = self.announced[path]
            entries.append(entry)
        return entries


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/api/models/owner/model/tree/main":
            return self._send(200, json.dumps(self.hub.tree()).encode())
        prefix = "/owner/model/resolve/main/"
        if path.startswith(prefix):
            # The real one redirects too.
            self.send_response(302)
            self.send_header("Location", f"/blobs/{path[len(prefix) :]}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if path.startswith("/blobs/"):
            return self._send_file(path[len("/blobs/") :])
        return self._send(404, b"")

    def _send_file(self, path: str) -> None:
        hub, asked = self.hub, self.headers.get("Range")
        hub.seen.append((path, asked))
        if hub.status != 200 or path not in hub.files:
            return self._send(hub.status if hub.status != 200 else 404, b"")
        content, start = hub.files[path], 0
        if asked and hub.ranges:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
        body = content[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut = hub.break_after.get(len(hub.seen))
        self.wfile.write(body[:cut])
        if cut is not None:
            self.close_connection = True
        return None

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serve_hub() -> Iterator[FakeHub]:
    """Run the server on a free port; ``hub.address`` is where."""
    hub = FakeHub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
