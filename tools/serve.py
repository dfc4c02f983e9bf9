"""``python -m tools.serve``: ComfyUI with this pack, in the foreground, for use in a browser."""

import argparse
import json
import os
import signal
import socket
import sys
from pathlib import Path

from .comfy_server import LOOPBACK, ComfyServer, HostError, copy_inputs, device_flags, prepare_base
from .environment import CACHE, ROOT
from .workflows_page import PAGE_SETTINGS

__all__ = ["main"]

BASE = CACHE / "comfyui-base"
SUMMARY = "ComfyUI with this pack, for use in a browser; unknown options go to ComfyUI."


def is_taken(port: int) -> bool:
    """Tell whether something on this machine listens on a port already."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((LOOPBACK, port)) == 0


def main(arguments: list[str] | None = None) -> int:
    """Run the server until it is stopped, and return its exit status."""
    parser = argparse.ArgumentParser(prog="dev.py serve", description=SUMMARY)
    parser.add_argument("--comfy-root", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=8188, help="port (default: %(default)s)")
    parser.add_argument(
        "--listen", default=LOOPBACK, help="address to listen on (default: %(default)s)"
    )
    options, flags = parser.parse_known_args(arguments)
    if is_taken(options.port):
        print(f"Port {options.port} is taken; choose another one with --port.", file=sys.stderr)
        return 1
    prepare_base(BASE)
    settings = BASE / "user" / "default" / "comfy.settings.json"
    if not settings.exists():
        settings.parent.mkdir(parents=True, exist_ok=True)
        settings.write_text(json.dumps(PAGE_SETTINGS), encoding="utf-8")
    copy_inputs(ROOT / "workflows" / "inputs", BASE)
    # Where `genxd download`, called in the checkout, puts models.
    os.environ.setdefault("GENXD_MODELS", str(ROOT / "models" / "genxd"))
    # So that the server is stopped too when this process is asked to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    server = ComfyServer(
        options.comfy_root,
        BASE,
        port=options.port,
        listen=options.listen,
        flags=[*device_flags(), *(flag for flag in flags if flag != "--")],
    )
    try:
        server.start()
        print(
            f"\nComfyUI with GenXD is ready at {server.url}\n"
            "(ComfyUI's error about comfyui-workflow-templates above is expected: its own examples "
            "are left out.)\n"
            "The example graphs are under Templates, Extensions, ComfyUI-GenXD.\n"
            f"Inputs and outputs are under {BASE}, models also in {os.environ['GENXD_MODELS']}. "
            "Ctrl-C ends it.\n",
            flush=True,
        )
        return server.wait()
    except HostError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        server.stop()


if __name__ == "__main__":
    sys.exit(main())
