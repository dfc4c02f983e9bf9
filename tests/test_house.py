"""The order of the house: what is written about the project agrees with the project."""

import ast
import re
import sys

import pytest

import genxd_core
from tests.source_code import called_name, calls, imports, modules, name_of, parse
from tests.support import ROOT
from tools.code_map import PACKAGES, render, update
from tools.environment import package_name, read_dependencies

PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
EXTRAS = (
    *("pipeline", "cli", "lift", "cuda", "curate", "train", "adamw8bit", "wandb", "eval", "dev"),
)
EVERYWHERE = {"torch", "numpy"}  # needed, and never listed: see pyproject.toml

# Where the name to import is not the name to install.
INSTALLED_AS = {
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
}
OURS = {"benchmarks", "genxd_core", "genxd_trainer", "nodes", "tests", "tools", "trainer"}
# What ComfyUI brings to its nodes, and what the developer's tools install for themselves.
BROUGHT_ALONG = {
    "nodes": {
        *{"comfy", "comfy_api", "comfy_execution", "comfy_extras", "folder_paths"},
        *{"latent_preview", "node_helpers", "server", "aiohttp", "av", "scipy", "torchvision"},
    },
    "tools": {"websocket"},
    "benchmarks": {"psutil"},
}


def declared(extra: str | None = None) -> set[str]:
    return {package_name(line) for line in read_dependencies(PYPROJECT, extra)}


def installed_as(module: str) -> str:
    return INSTALLED_AS.get(module, module.replace("_", "-")).lower()


def own_modules() -> list[str]:
    """All modules but empty package markers."""
    files = [path for path in modules(*PACKAGES) if path.read_text(encoding="utf-8").strip()]
    return ["__init__.py", "dev.py", *map(name_of, files)]


def test_map_of_the_code_is_up_to_date():
    assert render() in CONTRIBUTING, "run: python dev.py map"


def test_map_of_the_code_has_a_line_for_every_module(tmp_path):
    for name, text in {
        "__init__.py": '"""Root."""',
        "dev.py": '"""Commands."""',
        "genxd_core/__init__.py": '"""The core.\n\nMore."""',
        "genxd_core/cameras/rays.py": '"""Rays.\n\nMore."""',
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert render(tmp_path).split("\n") == [
        *("**The root**", "", "- `__init__.py`: Root.", "- `dev.py`: Commands."),
        *("", "**`genxd_core/`**: The core.", ""),
        *("", "**`genxd_core/cameras/`**", "", "- `rays.py`: Rays.", ""),
    ]


def test_map_is_written_between_its_marks_only(tmp_path):
    page = tmp_path / "page.md"
    begin, end = CONTRIBUTING.index("<!-- map"), CONTRIBUTING.index("<!-- end of the map")
    mark = CONTRIBUTING[begin : CONTRIBUTING.index("\n", begin)]
    page.write_text(f"before\n{mark}\nold\n{CONTRIBUTING[end:]}", encoding="utf-8")
    assert update(page)
    text = page.read_text(encoding="utf-8")
    assert text == f"before\n{mark}\n\n{render()}\n{CONTRIBUTING[end:]}"
    assert not update(page)
    page.write_text("no marks", encoding="utf-8")
    with pytest.raises(ValueError, match="lacks the marks"):
        update(page)


@pytest.mark.parametrize("name", own_modules())
def test_module_says_what_it_holds_and_is_short(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)), "no docstring"
    assert text.count("\n") <= 500


def test_version_is_the_same_everywhere():
    version = re.search(r'^version = "([^"]+)"', PYPROJECT, re.M)
    assert version
    assert version[1] == genxd_core.__version__


def test_changelog_begins_with_what_is_unreleased():
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert headings[0] == "[Unreleased]"


def test_license_is_the_one_that_is_declared():
    assert 'license = "Apache-2.0"' in PYPROJECT
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License\n" in text
    assert "Version 2.0, January 2004" in text


def test_requirements_of_the_pack_are_few_and_never_replace_what_comfyui_runs_on():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    names = {package_name(line) for line in lines if line and not line.startswith("#")}
    assert names <= declared()
    assert not names & {"torch", "torchvision", "torchaudio", "numpy", "xformers"}


def test_core_dependencies_are_those_that_it_loads():
    loaded = {
        installed_as(item.module.partition(".")[0])
        for path in modules("genxd_core")
        for item in imports(parse(path))
        if item.at_load and not item.level
    }
    third_party = loaded - {name.replace("_", "-") for name in sys.stdlib_module_names}
    assert third_party - EVERYWHERE <= declared()


@pytest.mark.parametrize("package", PACKAGES)
def test_every_imported_package_is_declared(package):
    known = declared().union(*map(declared, EXTRAS)) | EVERYWHERE
    known |= BROUGHT_ALONG.get(package, set())
    undeclared = {
        f"{name_of(path)}:{item.line} {item.module}"
        for path in modules(package)
        for item in imports(parse(path))
        if not item.level
        for module in [item.module.partition(".")[0]]
        if module not in sys.stdlib_module_names | OURS
        and installed_as(module) not in known
        and module not in known
    }
    assert not undeclared


def test_every_optional_package_comes_with_the_extra_that_its_error_names():
    wrong = []
    for path in modules("genxd_core", "nodes", "trainer"):
        for call in calls(parse(path)):
            if called_name(call) != "require" or not call.args:
                continue
            module = ast.literal_eval(call.args[0]).partition(".")[0]
            extra = next(ast.literal_eval(k.value) for k in call.keywords if k.arg == "extra")
            if extra not in EXTRAS or installed_as(module) not in declared(extra):
                wrong.append(f"{name_of(path)}:{call.lineno}: {module} is not in extra {extra!r}")
    assert not wrong


def names_an_encoding(call: ast.Call) -> bool:
    """Tell whether a call that may read or write text says in which encoding."""
    if any(keyword.arg == "encoding" for keyword in call.keywords):
        return True
    name = called_name(call)
    if name in ("read_text", "write_text"):
        return len(call.args) > (name == "write_text")
    if name != "open" or (isinstance(call.func, ast.Attribute) and not is_path_open(call)):
        return True
    literals = [arg.value for arg in call.args if isinstance(arg, ast.Constant)]
    literals += [k.value.value for k in call.keywords if isinstance(k.value, ast.Constant)]
    return any(isinstance(value, str) and "b" in value and len(value) <= 3 for value in literals)


def is_path_open(call: ast.Call) -> bool:
    """Tell whether ``something.open(...)`` looks like pathlib's: its first argument is a mode."""
    first = call.args[0] if call.args else None
    if first is None:
        return not call.keywords
    return isinstance(first, ast.Constant) and str(first.value).strip("rwaxbt+") == ""


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("path.read_text()", False),
        ("path.read_text(encoding='utf-8')", True),
        ("path.write_text(text)", False),
        ("path.write_text(text, 'utf-8')", True),
        ("open(path)", False),
        ("open(path, 'rb')", True),
        ("open(path, mode='wb')", True),
        ("open(path, 'w')", False),
        ("path.open('w')", False),
        ("path.open()", False),
        ("path.open('xb')", True),
        ("Image.open(path)", True),
        ("opener.open(request, timeout=5)", True),
    ],
)
def test_encoding_check_knows_its_cases(source, expected):
    (call,) = calls(ast.parse(source))
    assert names_an_encoding(call) is expected


def test_text_files_are_read_and_written_as_utf8():
    unsaid = [
        f"{name_of(path)}:{call.lineno}"
        for path in [ROOT / "dev.py", *modules(*PACKAGES)]
        for call in calls(parse(path))
        if not names_an_encoding(call)
    ]
    assert not unsaid, "the default differs between systems: name the encoding"


def test_library_and_nodes_print_nothing():
    printing = [
        f"{name_of(path)}:{call.lineno}"
        for path in modules("genxd_core", "nodes")
        if "cli" not in path.parts and path.name != "__main__.py"
        for call in calls(parse(path))
        if isinstance(call.func, ast.Name) and call.func.id == "print"
    ]
    assert not printing


def test_every_folder_with_modules_is_a_package():
    folders = {path.parent for path in modules(*PACKAGES)}
    assert [name_of(folder) for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_test_folders_are_no_packages():
    """With an ``__init__.py`` pytest would import them as parts of the pack's root package."""
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_registry_archive_keeps_what_users_need_and_leaves_out_the_rest():
    text = (ROOT / ".comfyignore").read_text(encoding="utf-8")
    ignored = {line.strip("/") for line in text.splitlines() if line.startswith("/")}
    needed = {"__init__.py", "genxd_core", "nodes", "web", "workflows", "subgraphs"}
    needed |= {"pyproject.toml", "requirements.txt", "README.md", "LICENSE", "CHANGELOG.md"}
    assert not ignored & needed
    assert {"tests", "trainer", "benchmarks", "tools", "dev.py", ".ci"} <= ignored


def test_conventions_name_functions_that_exist():
    text = (ROOT / "docs" / "conventions.md").read_text(encoding="utf-8")
    spans = re.findall(r"`([^`\n]+)`", text)
    called = {name for span in spans for name in re.findall(r"(?<![\w.])(\w+_\w+)\(", span)}
    source = "\n".join(path.read_text(encoding="utf-8") for path in modules("genxd_core"))
    assert len(called) > 5
    assert [name for name in sorted(called) if f"def {name}(" not in source] == []


SCRIPTS = sorted((ROOT / "web").rglob("*.js"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_script_of_the_page_is_short_and_says_what_it_holds(path):
    text = path.read_text(encoding="utf-8")
    assert text.startswith("// ")
    assert text.count("\n") <= 500
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_script_of_the_page_loads_nothing_but_the_pack_and_comfyui(path):
    """No host on the network, no code made of text, imports of files that are there."""
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"\b(https?|wss?):|\beval\b|new Function|document\.write|innerHTML", text)
    for name in re.findall(r'^import [^"]*"([^"]+)"', text, re.M):
        comfy = name in ("../../scripts/api.js", "../../scripts/app.js")
        assert comfy or (name.startswith("./") and (path.parent / name).is_file()), name
    # ComfyUI loads every script by itself: only one of them may do something then.
    assert ("registerExtension" in text) == (path.name == "genxd.js")


def test_there_is_a_script_of_the_page():
    assert "web/genxd.js" in [path.relative_to(ROOT).as_posix() for path in SCRIPTS]
