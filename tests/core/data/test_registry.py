"""Datasets by name."""

import subprocess
import sys

import pytest

from genxd_core.data.datasets.captures import Captures
from genxd_core.data.registry import DATASETS, open_dataset
from genxd_core.errors import InvalidInputError
from tests.support import DATA, ROOT


def test_dataset_is_opened_by_name_with_its_options():
    dataset = open_dataset("captures", DATA / "lund", depths=False)
    assert isinstance(dataset, Captures)
    assert not dataset.has_depth
    assert open_dataset("captures", str(DATA / "lund")).scene_ids == ("lund",)


def test_names_are_those_of_the_datasets():
    assert {"captures", "mvimgnet", "camvid", "objaverse", "gso"} < set(DATASETS)
    assert {"co3d", "realestate10k", "acid", "reconfusion"} < set(DATASETS)


@pytest.mark.parametrize("name", ["captures", "mvimgnet", "camvid", "objaverse", "gso"])
def test_root_that_is_no_dataset_is_refused_by_every_adapter(tmp_path, name):
    with pytest.raises(InvalidInputError, match=f"root of {name} is .* which is empty"):
        open_dataset(name, tmp_path)
    (tmp_path / "notes.txt").write_text("nothing", encoding="utf-8")
    with pytest.raises(InvalidInputError, match=rf"root of {name} .* holds notes\.txt; expected"):
        open_dataset(name, tmp_path)
    with pytest.raises(InvalidInputError, match=r"notes\.txt, which is a file"):
        open_dataset(name, tmp_path / "notes.txt")


def test_unknown_names_and_options_are_refused_with_those_that_are_known():
    with pytest.raises(InvalidInputError, match="dataset is 'kubric', expected one of acid, camv"):
        open_dataset("kubric", DATA)
    with pytest.raises(InvalidInputError, match="no option 'mask', expected one of masks, depths"):
        open_dataset("captures", DATA / "lund", mask=True)


def test_adapters_are_loaded_only_when_opened():
    program = "import sys, genxd_core.data.registry\n"
    program += "print(any(name.startswith('genxd_core.data.datasets.') for name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
