"""ComfyUI-GenXD: images and a camera path to new views (3D) or camera-controlled video (4D).

ComfyUI loads this file. Anything else that happens to import it, such as a test runner, gets a
module without nodes.
"""

import re
from importlib.util import find_spec

WEB_DIRECTORY = "./web"

__all__ = ["WEB_DIRECTORY"]

_OLDEST_COMFYUI = (0, 30)


def _check_version(found: str) -> None:
    """Raise ImportError if the host is older than the nodes can work with."""
    numbers = tuple(int(part) for part in re.findall(r"\d+", found)[:2])
    if numbers < _OLDEST_COMFYUI:
        oldest = ".".join(map(str, _OLDEST_COMFYUI))
        raise ImportError(
            f"ComfyUI-GenXD needs ComfyUI {oldest}.0 or newer and found {found}. Update ComfyUI "
            "(and its requirements), then start it again."
        )


# Every ComfyUI has folder_paths, those too that are too old to have what the nodes import.
if find_spec("folder_paths") is not None:
    if find_spec("comfyui_version") is None:
        _check_version("0.2 or older")
    from comfyui_version import __version__ as _comfyui_version

    _check_version(_comfyui_version)

    from .nodes import comfy_entrypoint

    __all__ += ["comfy_entrypoint"]
