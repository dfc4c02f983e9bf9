import json
import os
from pathlib import Path

import pytest

from genxd_core.cli.output_folder import check_output_file, check_output_folder, output_folder
from genxd_core.errors import InvalidInputError

RECORD = "record.json"


def write_run(out, files, *, force=False):
    with output_folder(out, record=RECORD, force=force) as folder:
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")


def content(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
        for path in folder.rglob("*")
        if path.is_file() and path.name != RECORD
    }


def test_results_appear_together_with_a_list_of_them(tmp_path):
    out = tmp_path / "a" / "out"
    write_run(out, {"frames/0.png": "x", "video.mp4": "y"})
    assert content(out) == {"frames/0.png": "x", "video.mp4": "y"}
    record = json.loads((out / RECORD).read_text(encoding="utf-8"))
    assert record["files"] == ["frames/0.png", RECORD, "video.mp4"]
    assert [path.name for path in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_interruption_leaves_nothing(tmp_path, error):
    def interrupted(*, force):
        with output_folder(tmp_path / "out", record=RECORD, force=force) as folder:
            (folder / "half").write_text("x", encoding="utf-8")
            raise error

    with pytest.raises(error):
        interrupted(force=False)
    assert not list(tmp_path.iterdir())
    write_run(tmp_path / "out", {"a": "1"})
    with pytest.raises(error):
        interrupted(force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert content(tmp_path / "out") == {"a": "1"}


def test_an_empty_folder_is_used(tmp_path):
    (tmp_path / "out").mkdir()
    write_run(tmp_path / "out", {"a": "1"})
    assert content(tmp_path / "out") == {"a": "1"}


def test_an_earlier_run_is_replaced_only_by_force(tmp_path):
    out = tmp_path / "out"
    write_run(out, {"a": "1", "frames/5.png": "old"})
    with pytest.raises(InvalidInputError, match=r"holds an earlier run.*--force"):
        write_run(out, {"a": "2"})
    assert content(out) == {"a": "1", "frames/5.png": "old"}
    write_run(out, {"a": "2"}, force=True)
    assert content(out) == {"a": "2"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_force_keeps_files_that_the_run_did_not_make(tmp_path):
    out = tmp_path / "out"
    write_run(out, {"a": "1"})
    (out / "notes").mkdir()
    (out / "notes" / "mine.txt").write_text("keep", encoding="utf-8")
    write_run(out, {"a": "2"}, force=True)
    assert content(out) == {"a": "2", "notes/mine.txt": "keep"}


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_of_other_things_is_never_overwritten(tmp_path, force):
    (tmp_path / "holiday.jpg").write_text("x", encoding="utf-8")
    with pytest.raises(InvalidInputError, match="which is never overwritten"):
        check_output_folder(tmp_path, record=RECORD, force=force)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "out").write_text("x", encoding="utf-8")
    with pytest.raises(InvalidInputError, match="is a file"):
        check_output_folder(tmp_path / "out", record=RECORD, force=True)


def test_a_run_of_another_command_is_not_replaced(tmp_path):
    write_run(tmp_path / "out", {"a": "1"})
    with pytest.raises(InvalidInputError, match=r"no other\.json of an earlier run"):
        check_output_folder(tmp_path / "out", record="other.json", force=True)


def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(InvalidInputError, match="which is a file"):
        check_output_folder(tmp_path / "file" / "a" / "out", record=RECORD, force=False)
    # Whoever runs the tests may be allowed everything.
    monkeypatch.setattr(os, "access", lambda place, mode: Path(place) != tmp_path)
    with pytest.raises(InvalidInputError, match="takes no new files"):
        check_output_folder(tmp_path / "new" / "out", record=RECORD, force=False)


def test_a_file_is_replaced_only_by_force(tmp_path):
    file = tmp_path / "a.json"
    check_output_file(file, name="report", force=False)
    file.write_text("x", encoding="utf-8")
    with pytest.raises(InvalidInputError, match=r"^report .* exists already.*--force"):
        check_output_file(file, name="report", force=False)
    check_output_file(file, name="report", force=True)
    with pytest.raises(InvalidInputError, match="is a folder"):
        check_output_file(tmp_path, name="report", force=True)
