import hashlib
import socket

import pytest

from genxd_core.errors import Cancelled, InvalidInputError
from genxd_core.hub import DownloadError, RemoteFile, fetch, list_files, pick_model
from tests.hub_server import MODEL_FILES, serve_hub

UNET = "unet/diffusion_pytorch_model.safetensors"
CONTENT = MODEL_FILES[UNET]


@pytest.fixture
def hub():
    with serve_hub() as running:
        yield running


@pytest.fixture
def unet(hub):
    return next(f for f in listed(hub) if f.path == UNET)


def listed(hub):
    return list_files("owner/model", endpoint=hub.address)


def get(file, folder, **options):
    return fetch(file, folder, pause_s=0.0, **options)


def hidden(folder):
    return [path for path in folder.rglob(".*") if path.is_file()]


def test_listing_gives_sizes_addresses_and_checksums(hub):
    files = {file.path: file for file in listed(hub)}
    assert set(files) == set(MODEL_FILES)
    assert files[UNET].sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert files[UNET].size == len(CONTENT)
    assert files[UNET].url == f"{hub.address}/owner/model/resolve/main/{UNET}"
    assert files["README.md"].sha256 is None
    # git hash-object of "# terms"
    assert files["README.md"].git_sha1 == hashlib.sha1(b"blob 7\0# terms").hexdigest()


def test_the_environment_names_another_hub(hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", hub.address + "/")
    assert len(list_files("owner/model")) == len(MODEL_FILES)


def test_a_model_consists_of_safetensors_and_configurations(hub):
    picked = [file.path for file in pick_model(listed(hub))]
    assert picked == [path for path in MODEL_FILES if not path.endswith(".bin")]


def test_a_repository_without_a_part_is_refused_and_listed(hub):
    del hub.files["vae/diffusion_pytorch_model.safetensors"]
    with pytest.raises(DownloadError, match=r"lacks vae/diff.*; it has unet/config\.json, "):
        pick_model(listed(hub))


def test_a_file_arrives_verified_and_alone(hub, unet, tmp_path):
    seen = []
    path = get(
        unet, tmp_path, progress=lambda done, total, preview=None: seen.append((done, total))
    )
    assert path == tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert not hidden(tmp_path)


def test_small_files_are_verified_by_gits_hash(hub, tmp_path):
    readme = next(file for file in listed(hub) if file.path == "README.md")
    assert get(readme, tmp_path).read_bytes() == b"# terms"
    hub.files["README.md"] = b"# other"
    (tmp_path / "README.md").unlink()
    with pytest.raises(DownloadError, match="not what was announced: expected git SHA-1"):
        get(readme, tmp_path)


def test_an_empty_file_is_a_file_too(hub, tmp_path):
    hub.files = {"README.md": b""}
    (empty,) = listed(hub)
    assert get(empty, tmp_path).read_bytes() == b""


def test_a_file_that_is_there_is_not_fetched_again(hub, unet, tmp_path):
    get(unet, tmp_path)
    hub.seen.clear()
    get(unet, tmp_path)
    assert hub.seen == []


def test_another_file_of_that_name_is_kept_unless_it_may_be_replaced(hub, unet, tmp_path):
    target = tmp_path / UNET
    target.parent.mkdir()
    target.write_bytes(b"mine")
    with pytest.raises(InvalidInputError, match="exists and is not the announced file"):
        get(unet, tmp_path)
    assert target.read_bytes() == b"mine"
    get(unet, tmp_path, replace=True)
    assert target.read_bytes() == CONTENT


def test_a_broken_connection_is_gone_on_with_at_once(hub, unet, tmp_path):
    hub.break_after = {1: 1000, 2: 500}
    assert get(unet, tmp_path).read_bytes() == CONTENT
    assert hub.seen == [(UNET, None), (UNET, "bytes=1000-"), (UNET, "bytes=1500-")]


def test_a_stopped_download_goes_on_next_time(hub, unet, tmp_path):
    hub.break_after = {n: 1000 for n in range(1, 6)}
    with pytest.raises(DownloadError, match=r"broke 5 times .* 5000 of 307200 bytes are kept"):
        get(unet, tmp_path)
    assert not (tmp_path / UNET).exists()
    assert len(hidden(tmp_path)) == 1
    hub.break_after = {}
    hub.seen.clear()
    assert get(unet, tmp_path).read_bytes() == CONTENT
    assert hub.seen == [(UNET, "bytes=5000-")]
    assert not hidden(tmp_path)


def test_a_cancelled_download_keeps_what_it_has(hub, unet, tmp_path, monkeypatch):
    monkeypatch.setattr("genxd_core.hub._BLOCK", 1024)
    with pytest.raises(Cancelled):
        get(unet, tmp_path, progress=lambda done, total, preview=None: done < 4096)
    assert not (tmp_path / UNET).exists()
    hub.seen.clear()
    get(unet, tmp_path)
    assert hub.seen == [(UNET, "bytes=4096-")]


def test_a_server_without_ranges_is_started_over(hub, unet, tmp_path):
    hub.ranges = False
    hub.break_after = {1: 1000}
    assert get(unet, tmp_path).read_bytes() == CONTENT


def test_wrong_content_is_deleted_and_both_checksums_told(hub, unet, tmp_path):
    hub.files[UNET] = CONTENT[:-1] + b"x"
    found = hashlib.sha256(hub.files[UNET]).hexdigest()
    message = f"expected SHA-256 {unet.sha256}, received SHA-256 {found}"
    with pytest.raises(DownloadError, match=message):
        get(unet, tmp_path)
    assert not (tmp_path / UNET).exists()
    assert not hidden(tmp_path)


def test_content_that_is_longer_than_announced_is_refused(hub, unet, tmp_path):
    hub.files[UNET] = CONTENT + b"more"
    with pytest.raises(DownloadError):
        get(unet, tmp_path)
    assert not (tmp_path / UNET).exists()


def test_a_part_of_another_version_is_never_gone_on_with(hub, unet, tmp_path):
    hub.break_after = {n: 1000 for n in range(1, 6)}
    with pytest.raises(DownloadError):
        get(unet, tmp_path)
    hub.break_after = {}
    hub.files[UNET] = bytes(len(CONTENT))
    new = next(file for file in listed(hub) if file.path == UNET)
    hub.seen.clear()
    assert get(new, tmp_path).read_bytes() == bytes(len(CONTENT))
    assert hub.seen == [(UNET, None)]


@pytest.mark.parametrize(
    ("status", "message"), [(404, "no such repository"), (403, "terms"), (401, "not public")]
)
def test_refusals_of_the_server_are_told_at_once(hub, unet, tmp_path, status, message):
    hub.status = status
    with pytest.raises(DownloadError, match=rf"{message}.*HTTP {status}"):
        get(unet, tmp_path)
    assert len(hub.seen) == 1


def test_a_busy_server_is_asked_again(hub, unet, tmp_path):
    hub.status = 503
    with pytest.raises(DownloadError, match="broke 5 times"):
        get(unet, tmp_path)
    assert len(hub.seen) == 5


def test_an_unknown_repository_is_told(hub):
    with pytest.raises(DownloadError, match="no such repository, revision or file"):
        list_files("owner/other", endpoint=hub.address)
    with pytest.raises(DownloadError, match="no such repository, revision or file"):
        list_files("owner/model", revision="v9", endpoint=hub.address)


@pytest.mark.parametrize("name", ["model", "a/b/c", "../x", "owner/", "https://x/y"])
def test_a_name_that_is_none_is_refused(name):
    with pytest.raises(InvalidInputError, match="expected owner/name"):
        list_files(name)


def test_a_machine_without_network_is_told_so():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(DownloadError, match=r"cannot be reached .* online"):
            list_files("owner/model", endpoint=endpoint)


def test_an_answer_that_is_no_list_is_told(hub, monkeypatch):
    monkeypatch.setattr(type(hub), "tree", lambda self: {"error": "x"})
    with pytest.raises(DownloadError, match="did not answer with a list of files"):
        listed(hub)


@pytest.mark.parametrize("path", ["../x.json", "/etc/x", "a/../../x", "c:\\x", "a\\..\\x", ""])
def test_paths_out_of_the_folder_are_refused(tmp_path, path):
    file = RemoteFile(path, "http://127.0.0.1:9/x", 1, "0" * 64)
    with pytest.raises(InvalidInputError, match="lead out of the model's folder"):
        get(file, tmp_path)


def test_files_without_a_checksum_are_refused(tmp_path):
    file = RemoteFile("x.json", "http://127.0.0.1:9/x", 1, None, None)
    with pytest.raises(DownloadError, match="without a checksum"):
        get(file, tmp_path)


def test_addresses_that_are_not_http_are_refused(tmp_path):
    file = RemoteFile("x.json", "file:///etc/passwd", 1, "0" * 64)
    with pytest.raises(InvalidInputError, match="no http or https address"):
        get(file, tmp_path)


def test_a_full_disk_is_told_before_anything_is_fetched(hub, unet, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})()
    monkeypatch.setattr("genxd_core.hub.shutil.disk_usage", lambda path: usage)
    with pytest.raises(DownloadError, match=r"needs 0\.0 GB more"):
        get(unet, tmp_path)
    assert hub.seen == []
