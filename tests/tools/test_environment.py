import json
import sys
from pathlib import Path

import pytest

from tests.support import ROOT
from tools import environment
from tools.environment import (
    Environment,
    SetupError,
    host_requirements,
    package_name,
    read_dependencies,
    requirements,
)

PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


@pytest.fixture
def pip(monkeypatch) -> list[list[str]]:
    """The requirement lists that pip was given, in place of running it."""
    given = []
    monkeypatch.setattr(Environment, "_install", lambda self, lines: given.append(lines))
    return given


@pytest.mark.parametrize(
    ("requirement", "name"),
    [
        ("Pillow>=10", "pillow"),
        ("opencv_python.headless ~= 4", "opencv-python-headless"),
        ("torch==2.14.1", "torch"),
        ("pydantic~=2.0; python_version < '4'", "pydantic"),
    ],
)
def test_package_name_is_normalised(requirement, name):
    assert package_name(requirement) == name


def test_package_name_of_an_option_is_refused():
    with pytest.raises(SetupError, match="--hash"):
        package_name("--hash=sha256:00")


def test_read_dependencies_agrees_with_a_toml_reader():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no TOML reader")
    project = tomllib.loads(PYPROJECT)["project"]
    assert read_dependencies(PYPROJECT) == project["dependencies"]
    for extra, lines in project["optional-dependencies"].items():
        assert read_dependencies(PYPROJECT, extra) == lines


def test_read_dependencies_of_an_unknown_extra_names_it():
    with pytest.raises(SetupError, match="'nonsense'"):
        read_dependencies(PYPROJECT, "nonsense")


def test_host_requirements_pin_torch_and_leave_out_the_templates():
    text = "# comment\ntorch\ntorchsde\nnumpy>=1.25.0  # why\n\ncomfyui-workflow-templates==0.11\n"
    assert host_requirements(text) == [*environment.TORCH, "torchsde", "numpy>=1.25.0"]


def test_requirements_for_development_include_those_for_running(tmp_path):
    (tmp_path / "requirements.txt").write_text("aiohttp>=3\n", encoding="utf-8")
    running = requirements(tmp_path, development=False)
    development = requirements(tmp_path, development=True)
    assert set(running) < set(development)
    assert {"aiohttp>=3", *environment.TORCH} <= set(running)
    assert not [line for line in running if package_name(line) == "pytest"]
    assert [line for line in development if package_name(line) == "pytest"]


def test_ensure_installs_once(tmp_path, pip):
    there = Environment(tmp_path)
    there.ensure(["a>=1", "b"])
    there.ensure(["b", "a>=1"])
    assert pip == [["a>=1", "b"]]


def test_ensure_is_satisfied_by_a_larger_earlier_list(tmp_path, pip):
    there = Environment(tmp_path)
    there.ensure(["a>=1", "b", "c"])
    there.ensure(["a>=1", "c"])
    assert len(pip) == 1


def test_ensure_installs_again_when_a_requirement_changes(tmp_path, pip):
    there = Environment(tmp_path)
    there.ensure(["a==1", "b"])
    there.ensure(["a==2"])
    assert pip[-1] == ["a==2"]
    assert there.missing(["a==1", "a==2", "b"]) == ["a==1"]


def test_ensure_knows_two_requirements_on_one_package(tmp_path, pip):
    there = Environment(tmp_path)
    there.ensure(["a>=1", "a>=2"])
    assert there.missing(["a>=1", "a>=2"]) == []


@pytest.mark.parametrize("content", ["", "{", "[]", "null"])
def test_damaged_stamp_counts_as_nothing_installed(tmp_path, content):
    (tmp_path / "genxd-requirements.json").write_text(content, encoding="utf-8")
    assert Environment(tmp_path).missing(["a"]) == ["a"]


def test_failing_pip_leaves_no_stamp(tmp_path, monkeypatch):
    monkeypatch.setattr(Environment, "python", Path(sys.executable))
    there = Environment(tmp_path)
    with pytest.raises(SetupError, match="pip could not install"):
        there.ensure(["no such requirement"])
    assert there.installed() == {}
    assert list(tmp_path.iterdir()) == []


def test_stamp_is_readable_json(tmp_path, pip):
    Environment(tmp_path).ensure(["Pillow>=10"])
    text = (tmp_path / "genxd-requirements.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"pillow": ["Pillow>=10"]}


def test_named_environment_that_is_none_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("GENXD_VENV", str(tmp_path))
    with pytest.raises(SetupError, match="holds no virtual environment"):
        Environment.of_checkout()


def test_environment_is_that_of_the_checkout_by_default(monkeypatch):
    monkeypatch.delenv("GENXD_VENV", raising=False)
    assert Environment.of_checkout().path == ROOT / ".venv"


@pytest.mark.slow
def test_create_makes_a_working_interpreter(tmp_path):
    there = Environment(tmp_path / "environment with a space")
    there.create()
    assert there.python.is_file()
    assert there.installed() == {}
