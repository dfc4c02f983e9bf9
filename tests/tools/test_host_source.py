import io
import tarfile
from pathlib import Path, PurePosixPath

import pytest

from tools import host_source
from tools.environment import SetupError
from tools.host_source import ensure_host, find_host, host_version, unpack

INNER = PurePosixPath("vendor/ComfyUI")


def make_archive(path: Path, files: dict[str, str], links: dict[str, str] | None = None) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return path


def content(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_unpack_takes_only_the_inner_folder(tmp_path):
    archive = make_archive(
        tmp_path / "a.tar.gz",
        {
            "p-1/setup.py": "outside",
            "p-1/vendor/other.py": "outside",
            "p-1/vendor/ComfyUI/main.py": "main",
            "p-1/vendor/ComfyUI/comfy/sd.py": "sd",
        },
    )
    unpack(archive, INNER, tmp_path / "host")
    assert content(tmp_path / "host") == {"main.py": "main", "comfy/sd.py": "sd"}


def test_unpack_replaces_what_was_there(tmp_path):
    target = tmp_path / "host"
    target.mkdir()
    (target / "old.py").write_text("old", encoding="utf-8")
    unpack(make_archive(tmp_path / "a.tar.gz", {"p/vendor/ComfyUI/new.py": "new"}), INNER, target)
    assert content(target) == {"new.py": "new"}


@pytest.mark.parametrize(
    "name",
    [
        "p/vendor/ComfyUI/../../../evil.py",
        "p/vendor/ComfyUI/..",
        "p/vendor/ComfyUI/a\\..\\evil.py",
        "p/vendor/ComfyUI/C:evil.py",
    ],
)
def test_unpack_refuses_paths_that_lead_out(tmp_path, name):
    folder = tmp_path / "deep" / "er"
    folder.mkdir(parents=True)
    archive = make_archive(folder / "a.tar.gz", {"p/vendor/ComfyUI/a.py": "a", name: "evil"})
    with pytest.raises(SetupError, match="unsafe path"):
        unpack(archive, INNER, folder / "host")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [archive]


def test_unpack_leaves_out_links(tmp_path):
    archive = make_archive(
        tmp_path / "a.tar.gz",
        {"p/vendor/ComfyUI/a.py": "a"},
        {"p/vendor/ComfyUI/link": "/", "p/vendor/ComfyUI/up": "../../.."},
    )
    unpack(archive, INNER, tmp_path / "host")
    assert [path.name for path in (tmp_path / "host").iterdir()] == ["a.py"]


def test_unpack_of_an_archive_without_the_folder_leaves_nothing(tmp_path):
    archive = make_archive(tmp_path / "a.tar.gz", {"p/setup.py": "x"})
    with pytest.raises(SetupError, match="no files under vendor/ComfyUI"):
        unpack(archive, INNER, tmp_path / "host")
    assert list(tmp_path.iterdir()) == [archive]


def test_unpack_of_a_broken_archive_keeps_the_old_folder(tmp_path):
    target = tmp_path / "host"
    target.mkdir()
    (target / "main.py").write_text("old", encoding="utf-8")
    archive = make_archive(tmp_path / "a.tar.gz", {"p/vendor/ComfyUI/main.py": "new" * 9999})
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises((EOFError, tarfile.TarError)):
        unpack(archive, INNER, target)
    assert content(target) == {"main.py": "old"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar.gz", "host"]


def fake_host(folder: Path, version: str = "9.9.9") -> Path:
    folder.mkdir(parents=True)
    (folder / "main.py").touch()
    (folder / "comfyui_version.py").write_text(
        f'# made by a tool\n__version__ = "{version}"\n', encoding="utf-8"
    )
    return folder


def test_host_version_is_read_without_running_anything(tmp_path):
    assert host_version(fake_host(tmp_path / "a", "0.31.2")) == "0.31.2"
    assert host_version(tmp_path) == ""


def test_named_host_is_used_whatever_its_version(tmp_path, monkeypatch):
    named = fake_host(tmp_path / "my comfy")
    monkeypatch.setenv("COMFYUI_PATH", str(named))
    assert find_host() == ensure_host(Path("no-python-needed")) == named


def test_named_folder_that_is_no_host_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    with pytest.raises(SetupError, match=r"is no ComfyUI: expected main\.py"):
        find_host()


def test_cached_host_of_another_version_is_not_used(tmp_path, monkeypatch):
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    monkeypatch.setattr(host_source, "CACHED", fake_host(tmp_path / "comfyui", "0.29.0"))
    assert find_host() is None


def test_failed_download_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    monkeypatch.setattr(host_source, "CACHE", tmp_path)
    monkeypatch.setattr(host_source, "CACHED", tmp_path / "comfyui")
    failing = tmp_path / "python"
    monkeypatch.setattr(
        host_source.subprocess, "run", lambda command, check: type("Done", (), {"returncode": 1})
    )
    with pytest.raises(SetupError, match="set COMFYUI_PATH"):
        ensure_host(failing)
    assert list(tmp_path.iterdir()) == []
