"""The parts of the server, the client and the demo that need no ComfyUI."""

import io
import os

import pytest

from tools.browser import find_chromium
from tools.comfy_client import ComfyClient, PromptError, output_files, raise_for_failure
from tools.comfy_server import (
    PACK_NAME,
    ComfyServer,
    HostError,
    copy_inputs,
    free_port,
    prepare_base,
    remove_link,
)
from tools.demo import ProgressPrinter, collect

GRAPH = {
    "1": {"class_type": "LoadImage", "inputs": {}, "_meta": {"title": "Load"}},
    "2": {"class_type": "KSampler", "inputs": {}},
}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def play(out: io.StringIO) -> str:
    printer = ProgressPrinter(GRAPH, out)
    printer("execution_start", {})
    printer("executing", {"node": "1"})
    printer("executing", {"node": "2"})
    for value in (1, 2, 20):
        printer("progress", {"value": value, "max": 20, "node": "2"})
    printer("executing", {"node": None})
    printer("execution_success", {})
    return out.getvalue()


def test_progress_without_a_terminal_is_one_line_a_node():
    assert play(io.StringIO()) == "  Load\n  KSampler 10% 100%\n"


def test_progress_on_a_terminal_redraws_a_bar():
    lines = play(Terminal()).split("\n")
    assert lines[0] == "  Load"
    assert lines[1].startswith("  KSampler\r  KSampler [#.")
    assert lines[1].endswith("\r  KSampler [" + "#" * 30 + "] 20/20")
    assert lines[2:] == [""]


def test_output_files_are_found_at_any_depth_in_order():
    first = {"filename": "a.png", "subfolder": "", "type": "output"}
    second = {"filename": "b.ply", "subfolder": "3d", "type": "temp"}
    entry = {"outputs": {"1": {"images": [first], "animated": [True]}, "2": {"3d": [[second]]}}}
    assert list(output_files(entry)) == [first, second]


def test_collect_saves_inside_its_folder_whatever_the_server_says(tmp_path):
    class Server:
        def view(self, file):
            return file["filename"].encode()

    entry = {
        "outputs": {
            "1": [
                {"filename": "../evil.png", "subfolder": "", "type": "output"},
                {"filename": "picture.png", "subfolder": "", "type": "input"},
            ]
        }
    }
    folder = tmp_path / "out"
    assert collect(Server(), entry, folder) == [folder / "evil.png"]
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "evil.png"]


def test_failed_prompt_is_told_with_node_and_reason():
    data = {
        "node_id": "2",
        "node_type": "KSampler",
        "exception_type": "ValueError",
        "exception_message": "too small\n",
        "traceback": ["line\n"],
    }
    status = {
        "status_str": "error",
        "messages": [["execution_start", {}], ["execution_error", data]],
    }
    with pytest.raises(PromptError, match=r"node 2 \(KSampler\): ValueError: too small\nline"):
        raise_for_failure({"status": status})


def test_interrupted_prompt_is_told_as_such():
    data = {"node_id": "2", "node_type": "KSampler"}
    status = {"status_str": "error", "messages": [["execution_interrupted", data]]}
    with pytest.raises(PromptError, match=r"interrupted at node 2 \(KSampler\)"):
        raise_for_failure({"status": status})


def test_wait_ends_when_the_server_is_gone(monkeypatch):
    def gone():
        raise HostError("ComfyUI has ended")

    client = ComfyClient("http://127.0.0.1:1", gone)
    monkeypatch.setattr(client, "history", lambda prompt_id: None)
    with pytest.raises(HostError, match="has ended"):
        client.wait("id")


def test_wait_gives_up_in_time(monkeypatch):
    client = ComfyClient("http://127.0.0.1:1")
    monkeypatch.setattr(client, "history", lambda prompt_id: None)
    with pytest.raises(TimeoutError, match="did not end within"):
        client.wait("id", timeout=0.2)


def test_free_ports_can_be_listened_on():
    assert 1024 <= free_port() <= 65535


def test_base_directory_links_the_pack_and_unlinks_only_the_link(tmp_path):
    pack = tmp_path / "pack with a space"
    pack.mkdir()
    (pack / "__init__.py").write_text("x = 1", encoding="utf-8")
    base = tmp_path / "base"
    link = prepare_base(base, pack)
    assert link == base / "custom_nodes" / PACK_NAME
    assert prepare_base(base, pack) == link
    assert (link / "__init__.py").samefile(pack / "__init__.py")
    remove_link(link)
    assert not os.path.lexists(link)
    assert (pack / "__init__.py").is_file()


def test_base_directory_with_a_real_folder_in_place_of_the_link_is_left_alone(tmp_path):
    real = tmp_path / "base" / "custom_nodes" / PACK_NAME
    real.mkdir(parents=True)
    (real / "mine.py").touch()
    with pytest.raises(OSError, match=PACK_NAME):
        prepare_base(tmp_path / "base", tmp_path)
    assert (real / "mine.py").is_file()


def test_bundled_inputs_are_copied_without_replacing_the_users(tmp_path):
    source, base = tmp_path / "inputs", tmp_path / "base"
    source.mkdir()
    (base / "input").mkdir(parents=True)
    for name in ("a.png", "b.png"):
        (source / name).write_text("bundled", encoding="utf-8")
    (base / "input" / "b.png").write_text("mine", encoding="utf-8")
    (source / "capture" / "images").mkdir(parents=True)
    (source / "capture" / "images" / "c.jpg").write_text("inside", encoding="utf-8")
    copy_inputs(source, base)
    inside = base / "input" / "capture" / "images" / "c.jpg"
    assert inside.read_text(encoding="utf-8") == "inside"
    assert (base / "input" / "a.png").read_text(encoding="utf-8") == "bundled"
    assert (base / "input" / "b.png").read_text(encoding="utf-8") == "mine"
    copy_inputs(tmp_path / "none", base)


def test_server_command_keeps_everything_below_the_base_directory(tmp_path):
    server = ComfyServer(tmp_path / "comfy", tmp_path / "base", port=1234, flags=["--cpu"])
    command = server.command()
    assert command[1] == str(tmp_path / "comfy" / "main.py")
    assert command[command.index("--base-directory") + 1] == str(tmp_path / "base")
    assert (tmp_path / "base").as_posix() in command[command.index("--database-url") + 1]
    assert command[-1] == "--cpu"
    assert server.url == "http://127.0.0.1:1234"


def test_chromium_is_the_one_that_is_named(tmp_path, monkeypatch):
    executable = tmp_path / "my-chromium"
    monkeypatch.setenv("GENXD_CHROMIUM", str(executable))
    assert find_chromium() is None
    executable.touch()
    assert find_chromium() == executable
