import subprocess
import sys

import pytest

import dev
from tests.support import ROOT


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [([0, 0], 0), ([1, 0], 1), ([0, 2], 2), ([5, 0], 0), ([0, 5], 0), ([5, 5], 5), ([5, 1], 1)],
)
def test_combined_status_is_the_first_failure(statuses, expected):
    assert dev.combined_status(statuses) == expected


@pytest.fixture
def calls(monkeypatch) -> list[tuple[str, ...]]:
    made = []
    monkeypatch.setattr(dev, "prepare", lambda development: ("python", "comfy"))
    monkeypatch.setattr(dev, "call", lambda python, *arguments: made.append(arguments) or 0)
    return made


def test_test_runs_three_stages_with_the_given_arguments(calls):
    assert dev.main(["test", "tests/core", "-k", "rays", "-x"]) == 0
    rest = ("tests/core", "-k", "rays", "-x")
    assert calls == [
        ("-m", "pytest", "-m", "not comfy and not slow", *rest),
        ("-m", "pytest", "-m", "not comfy and slow", *rest),
        ("-m", "pytest", "-m", "comfy", *rest),
    ]


def test_test_joins_marks_with_those_of_the_stage(calls):
    dev.main(["test", "-m", "not browser"])
    assert [call[3] for call in calls] == [
        "(not comfy and not slow) and (not browser)",
        "(not comfy and slow) and (not browser)",
        "(comfy) and (not browser)",
    ]


def test_every_stage_runs_even_when_an_earlier_one_fails(monkeypatch, calls):
    monkeypatch.setattr(dev, "call", lambda python, *arguments: calls.append(arguments) or 1)
    assert dev.main(["test"]) == 1
    assert len(calls) == len(dev.TEST_STAGES)


def test_lint_changes_files_only_when_asked(calls):
    dev.main(["lint"])
    assert ("-m", "ruff", "format", "--check", ".") in calls
    calls.clear()
    dev.main(["lint", "--fix"])
    assert ("-m", "ruff", "format", ".") in calls
    assert ("-m", "ruff", "check", "--fix", ".") in calls


def test_bench_of_an_unknown_name_lists_the_known_ones(calls, capsys):
    assert dev.main(["bench", "nonsense"]) == 2
    assert "nonsense" in capsys.readouterr().err
    assert calls == []


@pytest.mark.parametrize(("arguments", "status"), [([], 0), (["--help"], 0), (["nonsense"], 2)])
def test_help_names_every_command(arguments, status, capsys):
    assert dev.main(arguments) == status
    text = capsys.readouterr().out
    assert all(f"dev.py {name}" in text for name in dev.COMMANDS)


def test_setup_error_is_a_message_and_no_traceback(monkeypatch, capsys):
    def fail(development):
        raise dev.SetupError("pip could not install")

    monkeypatch.setattr(dev, "prepare", fail)
    assert dev.main(["setup"]) == 1
    assert capsys.readouterr().err == "\npip could not install\n"


def test_dev_needs_only_the_standard_library():
    # -S leaves out site-packages; -P would not be known to Python 3.10.
    command = [sys.executable, "-S", "-E", str(ROOT / "dev.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
