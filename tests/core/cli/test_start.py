"""Before any model is loaded: what is chosen for the user, and what is told without torch."""

import importlib.util

import pytest

from genxd_core.__main__ import main as start
from genxd_core.cli.generate import Generate


@pytest.mark.parametrize(("mode", "expected"), [("3d", 0.0), ("4d", 0.5), ("video", 0.5)])
def test_motion_strength_left_out_is_the_usual_one(mode, expected):
    assert Generate(images=(), mode=mode)._motion_strength() == expected
    assert Generate(images=(), mode=mode, motion_strength=0.0)._motion_strength() == 0.0


def test_without_torch_the_command_line_says_so_in_one_line(monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "torch" else find(name)
    )
    assert start() == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "PyTorch is not installed for" in line
