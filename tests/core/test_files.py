import hashlib

import pytest

from genxd_core.errors import WeightsError
from genxd_core.files import read_checksums, sha256_of, write_atomically, write_checksums


def names(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_file_is_written_and_its_folder_made(tmp_path):
    target = tmp_path / "a" / "b.txt"
    write_atomically(target, lambda path: path.write_text("hello", encoding="utf-8"))
    assert target.read_text(encoding="utf-8") == "hello"
    assert names(tmp_path) == ["b.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, error):
    target = tmp_path / "b.txt"
    target.write_text("old", encoding="utf-8")

    def fail(path):
        path.write_text("half", encoding="utf-8")
        raise error

    with pytest.raises(error):
        write_atomically(target, fail)
    assert target.read_text(encoding="utf-8") == "old"
    assert names(tmp_path) == ["b.txt"]


def test_the_temporary_file_has_the_same_suffix(tmp_path):
    seen = []
    write_atomically(tmp_path / "v.mp4", lambda p: (seen.append(p.suffix), p.touch()))
    assert seen == [".mp4"]


def test_sha256_agrees_with_the_standard_library(tmp_path):
    content = bytes(range(256)) * 9000  # more than one block
    (tmp_path / "x").write_bytes(content)
    assert sha256_of(tmp_path / "x") == hashlib.sha256(content).hexdigest()


def test_checksums_of_a_folder_come_back(tmp_path):
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_bytes(b"{}")
    (tmp_path / "x y.bin").write_bytes(b"1")
    path = write_checksums(tmp_path)
    assert write_checksums(tmp_path).read_bytes() == path.read_bytes()
    assert read_checksums(path) == {
        "unet/config.json": hashlib.sha256(b"{}").hexdigest(),
        "x y.bin": hashlib.sha256(b"1").hexdigest(),
    }


@pytest.mark.parametrize("line", ["nonsense", "abc  file", f"{'a' * 64}", f"{'a' * 64}  "])
def test_a_damaged_list_is_refused(tmp_path, line):
    (tmp_path / "SHA256SUMS").write_text(line, encoding="utf-8")
    with pytest.raises(WeightsError, match="is no list of SHA-256 values"):
        read_checksums(tmp_path / "SHA256SUMS")
