"""docs/training.md: its commands are understood, and the settings and files that it names exist."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import tyro

from genxd_core.data.registry import DATASETS
from tests.support import ROOT
from trainer.__main__ import Check, Encode, Train, _Command, configured
from trainer.recipes import RECIPES
from trainer.settings import to_record

PAGE = ROOT / "docs" / "training.md"
TEXT = PAGE.read_text(encoding="utf-8")
SECTIONS = ("model", "data", "loss", "optim", "engine", "validation")
TRAINER = "-m trainer "


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.M | re.S)
    return [text for name, text in found if name == language]


def commands() -> list[str]:
    """What stands behind ``-m trainer`` in every line that has it, launchers left away."""
    lines = [line for block in blocks("") for line in block.splitlines()]
    return [line.partition(TRAINER)[2] for line in lines if TRAINER in line]


def names_of(record: object, at: str = "") -> Iterator[str]:
    """Dotted names of all settings; sources by their names, and by NAME as the page writes it."""
    if at:
        yield at
    if isinstance(record, dict):
        for key, value in record.items():
            yield from names_of(value, f"{at}.{key}" if at else key)
    if at == "data.sources" and isinstance(record, list):
        for source in record:
            yield from names_of(source, f"{at}.{source['name']}")
            yield from names_of(source, f"{at}.NAME")


SETTINGS = {
    name
    for recipe in RECIPES
    for name in names_of(to_record(configured(recipe, Path("data"), Path("runs") / recipe)))
}


def test_page_has_commands_of_every_kind():
    kinds = {command.split()[0] for command in commands()}
    assert {"recipes", "check", "encode", "train", "export"} <= kinds
    assert len(commands()) > 20


@pytest.mark.parametrize("command", commands())
def test_command_of_the_page_is_understood(command):
    arguments = shlex.split(command)
    parsed = tyro.cli(_Command, args=arguments)
    if isinstance(parsed, Train | Check | Encode):
        out = getattr(parsed, "out", Path("runs") / parsed.recipe)
        run = configured(parsed.recipe, parsed.data, out, parsed.settings)
        assert run.recipe == parsed.recipe
        if isinstance(parsed, Encode):
            assert set(parsed.sources) <= {source.name for source in run.data.sources}


def test_settings_that_the_page_names_exist():
    spans = re.findall(r"`([^`\n]+)`", TEXT)
    texts = [span.removeprefix("--set ").partition("=")[0].strip('" ') for span in spans]
    named = [text for text in texts if re.fullmatch(rf"({'|'.join(SECTIONS)})(\.\w+)+", text)]
    unknown = [name for name in named if name not in SETTINGS]
    # Adapters' own options, which no recipe sets.
    assert {name for name in unknown if ".options." not in name} == set()
    assert len(named) > 40


def test_recipes_that_the_page_names_exist():
    likely = r"`((?:finetune|released|ablation|nano|stage\d)\w*)`"
    named = set(re.findall(likely, TEXT)) - {"stage"}
    assert len(named) > 12
    assert named <= set(RECIPES)
    assert {"stage1", "stage2", "stage3"} <= set(re.findall(r"--recipe (\w+)", TEXT))


def test_every_dataset_is_in_the_table():
    rows = re.findall(r"^\| \[([\w, ]+)\]\(\.\./genxd_core/data/datasets/", TEXT, re.M)
    assert {name for row in rows for name in row.split(", ")} == set(DATASETS)


def test_files_and_sections_that_the_page_links_to_exist():
    links = re.findall(r"\]\(([^)\s]+)\)", TEXT)
    titles = re.findall(r"^#+ (.+)$", TEXT, re.M)
    anchors = {"#" + re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    files = [link for link in links if not link.startswith("#")]
    assert [link for link in links if link.startswith("#") and link not in anchors] == []
    assert [link for link in files if not (PAGE.parent / link).exists()] == []
    assert files


def test_programs_of_the_page_are_python_and_import_what_is_there():
    programs = blocks("python")
    assert programs
    for program in programs:
        for node in ast.walk(ast.parse(program)):
            if isinstance(node, ast.ImportFrom):
                module = __import__(str(node.module), fromlist=["_"])
                assert [a.name for a in node.names if not hasattr(module, a.name)] == []
