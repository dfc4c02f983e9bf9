"""What comes with the package is whole, small, and says where it is from."""

from genxd_core.assets import LPIPS_HEADS, NANO
from genxd_core.files import read_checksums, sha256_of
from tests.support import ROOT

LARGEST_MB = 24


def test_embedded_model_is_small():
    size = sum(path.stat().st_size for path in NANO.rglob("*") if path.is_file())
    assert size <= LARGEST_MB * 1e6


def test_embedded_model_is_the_one_that_was_exported():
    sums = read_checksums(NANO / "SHA256SUMS")
    files = {p.relative_to(NANO).as_posix() for p in NANO.rglob("*") if p.is_file()}
    assert set(sums) == files - {"SHA256SUMS", "README.md"}
    assert {name: sha256_of(NANO / name) for name in sums} == sums


def test_embedded_model_says_how_it_was_made_and_how_good_it_is():
    text = (NANO / "README.md").read_text(encoding="utf-8")
    for word in ("python -m trainer train ", "seed", "steps", "hours", "PSNR", "Apache-2.0"):
        assert word in text, word


def test_embedded_heads_are_small_and_say_whose_they_are():
    assert LPIPS_HEADS.stat().st_size <= 32_000
    licence = LPIPS_HEADS.with_name("lpips-heads.LICENSE.txt")
    text = licence.read_text(encoding="utf-8")
    for words in ("Copyright (c) 2018, Richard Zhang", "BSD-2-Clause", "AS IS", "unchanged"):
        assert words in text, words
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'"{licence.relative_to(ROOT).as_posix()}"' in pyproject
