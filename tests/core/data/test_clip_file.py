"""clip.json: what the curation writes and the reader of CamVid-30K reads."""

import json

import pytest

from genxd_core.data.clip_file import (
    ClipCameras,
    ClipFile,
    ClipObject,
    read_clip_file,
    write_clip_file,
)
from genxd_core.data.scene import MeasuredMotion
from genxd_core.errors import InvalidInputError

KEPT = ClipFile(
    status="kept",
    motion_strength=0.0144,
    stride=2,
    fps=7.5,
    objects=(
        ClipObject(id=1, name="dog", frames=24, tracks=310, motion_strength=0.0144),
        ClipObject(id=2, frames=3),
    ),
    cameras=ClipCameras(registered=24, frames=24, points=1890, triangulated_fraction=0.47),
    stages={"sfm": {"seconds": 33.5, "mapper": "global"}},
)


def write(path, **content):
    path.write_text(json.dumps({"version": 1, "status": "failed", "reason": "x"} | content))
    return path


def test_what_is_written_is_read_again(tmp_path):
    write_clip_file(KEPT, tmp_path / "clip.json")
    assert read_clip_file(tmp_path / "clip.json") == KEPT


def test_file_has_the_keys_that_others_rely_on(tmp_path):
    write_clip_file(KEPT, tmp_path / "clip.json")
    content = json.loads((tmp_path / "clip.json").read_text(encoding="utf-8"))
    assert content["version"] == 1
    assert content["status"] == "kept"
    assert content["motion_strength"] == 0.0144
    assert (content["stride"], content["fps"]) == (2, 7.5)
    assert content["objects"][1] == {"id": 2, "name": "", "frames": 3, "tracks": 0}
    assert content["cameras"]["registered"] == 24
    assert content["stages"]["sfm"]["mapper"] == "global"


def test_strength_comes_with_its_stride():
    assert KEPT.motion == MeasuredMotion(0.0144, stride=2)
    assert ClipFile(status="failed", reason="no frames").motion is None


def test_unknown_keys_are_kept_and_written_again(tmp_path):
    path = write(
        tmp_path / "clip.json",
        settings="ab12",
        objects=[{"id": 3, "colour": "red"}],
        cameras={"points": 5, "seed": 7},
    )
    clip = read_clip_file(path)
    assert clip.others == {"settings": "ab12"}
    assert clip.objects[0].others == {"colour": "red"}
    write_clip_file(clip, tmp_path / "again.json")
    again = json.loads((tmp_path / "again.json").read_text(encoding="utf-8"))
    assert again["settings"] == "ab12"
    assert again["objects"][0]["colour"] == "red"
    assert again["cameras"]["seed"] == 7


def test_reason_of_a_later_version_is_read_but_not_written(tmp_path):
    path = write(tmp_path / "clip.json", status="rejected", reason="too_dark")
    clip = read_clip_file(path)
    assert clip.reason == "too_dark"
    with pytest.raises(InvalidInputError, match="reason is 'too_dark', expected one of too_few"):
        write_clip_file(clip, tmp_path / "again.json")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"version": 2}, "version is 2, expected at most 1; a later release wrote it"),
        ({"version": "1"}, "version is '1', expected a whole number"),
        ({"status": "good"}, "status is 'good', expected one of kept, rejected, failed"),
        ({"status": None}, "status is None, expected text"),
        ({"status": "kept"}, "reason is 'x', expected none here"),
        ({"status": "kept", "reason": ""}, "motion_strength is None, expected one if kept"),
        ({"reason": ""}, "reason is '', expected one here"),
        ({"motion_strength": "0.1"}, "motion_strength is '0.1', expected a number"),
        ({"motion_strength": -0.1}, "motion_strength is -0.1, expected a finite number from 0"),
        ({"motion_strength": float("nan")}, "motion_strength is nan, expected a finite"),
        ({"stride": 0}, "stride is 0, expected a number from 1"),
        ({"stride": 1.5}, "stride is 1.5, expected a whole number"),
        ({"fps": 0}, "fps is 0, expected more than 0"),
        ({"objects": {}}, "objects is {}, expected a list"),
        ({"objects": [3]}, r"objects\[0\] is 3, expected a JSON object"),
        ({"objects": [{"name": "dog"}]}, r"objects\[0\]: id is None, expected a value"),
        ({"objects": [{"id": 1, "tracks": -1}]}, r"objects\[0\]: tracks is -1"),
        ({"cameras": {"points": True}}, "cameras: points is True, expected a whole number"),
        ({"stages": []}, r"stages is \[\], expected a JSON object"),
    ],
)
def test_impossible_values_are_refused_with_file_and_key(tmp_path, content, told):
    path = write(tmp_path / "clip.json", **content)
    with pytest.raises(InvalidInputError, match=rf"clip file .*clip\.json: {told}"):
        read_clip_file(path)


def test_missing_and_damaged_files_are_refused(tmp_path):
    path = tmp_path / "clip.json"
    with pytest.raises(InvalidInputError, match=r"clip\.json does not exist; run the curation"):
        read_clip_file(path)
    for data in (b'{"status": ', b"\xff\xfe\x00", b"[" * 100_000):
        path.write_bytes(data)
        with pytest.raises(InvalidInputError, match=r"clip\.json cannot be read"):
            read_clip_file(path)
    path.write_bytes(b"[]")
    with pytest.raises(InvalidInputError, match=r"the file is \[\], expected a JSON object"):
        read_clip_file(path)


def test_what_json_cannot_hold_is_not_written(tmp_path):
    clip = ClipFile(status="failed", reason="x", stages={"sfm": {"seconds": float("inf")}})
    with pytest.raises(InvalidInputError, match="give what JSON can hold"):
        write_clip_file(clip, tmp_path / "clip.json")
    assert not list(tmp_path.iterdir())
