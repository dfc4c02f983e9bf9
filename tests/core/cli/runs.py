"""What tests of the command line look at: the error's one line, and what was written."""

__all__ = ["error_line", "made"]


def error_line(capsys):
    """The one line on the error output."""
    lines = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(lines) == 1, lines
    assert lines[0].startswith("genxd: error: ")
    return lines[0]


def made(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
