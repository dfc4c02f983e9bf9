"""The command line as a whole: help, unknown options, and the options of paths."""

import pytest

from genxd_core.__main__ import main
from genxd_core.cli.path_options import PathName, make_path, path_options
from genxd_core.errors import InvalidInputError

pytest.importorskip("tyro", reason="needs the extra `cli`")
pytest.importorskip("tqdm", reason="needs the extra `cli`")


def test_unknown_options_end_with_two(place, capsys):
    assert main(["generate", "photo.png", "--no-such-option"]) == 2
    assert main(["dance"]) == 2
    assert main([]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_help_is_given(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(command in text for command in ("generate", "lift", "render", "doctor", "download"))


@pytest.mark.parametrize("name", PathName.__args__)
def test_every_path_of_the_command_line_can_be_made(name):
    cameras = make_path(name, 8, 1.5, {})
    assert len(cameras) == 8
    assert {"radius", "focal_norm"} <= set(path_options(name))


def test_every_path_option_is_an_option_of_the_command():
    from genxd_core.cli.generate import Generate

    options = set(Generate.__dataclass_fields__)
    known = {option for name in PathName.__args__ for option in path_options(name)}
    assert known - options == {"target", "consistent4d"}


def test_an_option_of_no_path_is_refused_with_those_that_have_it():
    with pytest.raises(InvalidInputError, match="It belongs to dolly"):
        make_path("pan", 4, 1.0, {"distance": 1.0})
