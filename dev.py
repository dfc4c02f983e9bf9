"""The commands of this project, the same on Linux, Windows and macOS.

    python dev.py demo            make views of a bundled picture in a real ComfyUI
    python dev.py serve           ComfyUI with this pack, for use in a browser
    python dev.py test [...]      every test; further arguments go to pytest
    python dev.py lint [--fix]    format, lint and types
    python dev.py bench [NAME]    a benchmark, or the list of them
    python dev.py workflows [...] the example workflows: graphs, prompts, thumbnails, table
    python dev.py map             write the map of the code into CONTRIBUTING.md
    python dev.py setup           only install what the commands above need

All but map make ``.venv`` (or use the environment that GENXD_VENV names), install what is missing
and fetch ComfyUI into ``.cache`` (or use the one that COMFYUI_PATH names) before their own work.
Standard library only; Python 3.10 or newer.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

if sys.version_info < (3, 10):  # noqa: UP036  (older ones get as far as this line)
    sys.exit(f"dev.py needs Python 3.10 or newer; this is {sys.version.split()[0]}")

from tools import code_map
from tools.browser import NOT_FOUND, find_chromium
from tools.environment import ROOT, Environment, SetupError, requirements
from tools.host_source import ensure_host

# Tests in ComfyUI run in a process of their own: it changes global state of torch and of logging.
TEST_STAGES = (
    ("unit", "not comfy and not slow"),
    ("long", "not comfy and slow"),
    ("host", "comfy"),
)
NO_TESTS_COLLECTED = 5


def prepare(*, development: bool) -> tuple[Path, Path]:
    """Make everything ready and return the interpreter to use and ComfyUI's folder."""
    environment = Environment.of_checkout()
    environment.create()
    comfy_root = ensure_host(environment.python)
    environment.ensure(requirements(comfy_root, development=development))
    return environment.python, comfy_root


def call(python: Path, *arguments: str) -> int:
    """Run the environment's Python in the root of the checkout and return its exit status."""
    try:
        return subprocess.run([str(python), *arguments], cwd=ROOT, check=False).returncode
    except KeyboardInterrupt:  # the child had it too, and has ended by itself
        return 130


def shows_help(arguments: list[str], module: str) -> bool:
    """Show a command's help, where it was asked for, without installing anything first."""
    if not {"-h", "--help"} & set(arguments):
        return False
    call(Path(sys.executable), "-m", module, "--help")
    return True


def demo(arguments: list[str]) -> int:
    """Run the demo workflow and collect the results."""
    if shows_help(arguments, "tools.demo"):
        return 0
    python, comfy_root = prepare(development=False)
    return call(python, "-m", "tools.demo", "--comfy-root", str(comfy_root), *arguments)


def serve(arguments: list[str]) -> int:
    """Start ComfyUI with the pack; unknown options go to ComfyUI."""
    if shows_help(arguments, "tools.serve"):
        return 0
    python, comfy_root = prepare(development=False)
    return call(python, "-m", "tools.serve", "--comfy-root", str(comfy_root), *arguments)


def setup(arguments: list[str]) -> int:
    """Install everything that the commands need."""
    argparse.ArgumentParser(prog="dev.py setup", description=setup.__doc__).parse_args(arguments)
    python, comfy_root = prepare(development=True)
    print(f"Ready: {python}\nComfyUI: {comfy_root}")
    return 0


def test(arguments: list[str]) -> int:
    """Run the tests in three stages: quick ones, long ones, and those with ComfyUI."""
    parser = argparse.ArgumentParser(prog="dev.py test", description=test.__doc__, add_help=False)
    parser.add_argument("-m", dest="markers", default="")
    options, pytest_arguments = parser.parse_known_args(arguments)
    python, _ = prepare(development=True)
    if find_chromium() is None:
        print(f"Browser tests will be skipped: {NOT_FOUND}")
    statuses = []
    for name, markers in TEST_STAGES:
        print(f"\n== {name} tests ==", flush=True)
        chosen = f"({markers}) and ({options.markers})" if options.markers else markers
        statuses.append(call(python, "-m", "pytest", "-m", chosen, *pytest_arguments))
    return combined_status(statuses)


def combined_status(statuses: Sequence[int]) -> int:
    """Return the first failure among pytest's exit statuses.

    A stage with no tests is a failure only where every stage has none.
    """
    ran = [status for status in statuses if status != NO_TESTS_COLLECTED]
    if not ran:
        return NO_TESTS_COLLECTED
    return next((status for status in ran if status), 0)


def lint(arguments: list[str]) -> int:
    """Check format, lint and types; --fix mends what can be mended."""
    parser = argparse.ArgumentParser(prog="dev.py lint", description=lint.__doc__)
    parser.add_argument("--fix", action="store_true", help="change the files")
    fix = parser.parse_args(arguments).fix
    python, _ = prepare(development=True)
    statuses = [
        call(python, "-m", "ruff", "check", *(["--fix"] if fix else []), "."),
        call(python, "-m", "ruff", "format", *([] if fix else ["--check"]), "."),
        call(python, "-m", "mypy"),
    ]
    return next((status for status in statuses if status), 0)


def benchmarks() -> dict[str, str]:
    """Return the first line of every benchmark's docstring, by its name."""
    paths = sorted((ROOT / "benchmarks").glob("[!_]*.py"))
    return {path.stem: code_map.summary(path) for path in paths}


def bench(arguments: list[str]) -> int:
    """Run a benchmark with its arguments, or list the benchmarks."""
    known = benchmarks()
    name = arguments[0] if arguments else ""
    if name not in known:
        for benchmark, line in known.items():
            print(f"  {benchmark:<24} {line}")
        if name and not name.startswith("-"):
            print(f"There is no benchmark {name!r}; the list is above.", file=sys.stderr)
            return 2
        return 0
    python, _ = prepare(development=True)
    return call(python, "-m", f"benchmarks.{name}", *arguments[1:])


def workflows(arguments: list[str]) -> int:
    """Make the example workflows and everything that shows them."""
    python, comfy_root = prepare(development=True)
    return call(python, "-m", "tools.workflows", "--comfy-root", str(comfy_root), *arguments)


def write_map(arguments: list[str]) -> int:
    """Write the map of the code into CONTRIBUTING.md."""
    argparse.ArgumentParser(prog="dev.py map", description=write_map.__doc__).parse_args(arguments)
    print("The map was brought up to date." if code_map.update() else "The map is up to date.")
    return 0


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "demo": demo,
    "serve": serve,
    "test": test,
    "lint": lint,
    "bench": bench,
    "workflows": workflows,
    "map": write_map,
    "setup": setup,
}


def main(arguments: list[str]) -> int:
    """Run one command and return its exit status."""
    name = arguments[0] if arguments else "--help"
    if name not in COMMANDS:
        print(__doc__)
        if name in ("-h", "--help"):
            return 0
        print(f"There is no command {name!r}; the list is above.", file=sys.stderr)
        return 2
    try:
        return COMMANDS[name](arguments[1:])
    except SetupError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
