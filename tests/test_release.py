"""What a release has: the wheel's files, its command, and the files about it."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from multigrain_jax import __version__

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel's files, by their names."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (path,) = folder.iterdir()
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_a_wheel_has_one_folder_with_recipes_pages_and_types(wheel):
    info = f"multigrain_jax-{__version__}.dist-info"
    assert {name.split("/")[0] for name in wheel} == {"multigrain_jax", info}
    recipes = {path.name for path in (ROOT / "configs").glob("*.py")}
    assert len(recipes) > 15
    for folder, own in (("recipes", recipes), ("pages", {"page.css", "gallery.js"})):
        found = {
            name.split("/")[-1]
            for name in wheel
            if name.startswith(f"multigrain_jax/{folder}/")
        }
        assert own <= found
    assert "multigrain_jax/py.typed" in wheel
    assert f"{info}/licenses/LICENSE" in wheel
    assert not [name for name in wheel if "__pycache__" in name or "/test" in name]


def test_a_wheel_has_the_command(wheel):
    info = f"multigrain_jax-{__version__}.dist-info"
    entries = wheel[f"{info}/entry_points.txt"].decode().split()
    assert entries == [
        *("[console_scripts]", "multigrain", "=", "multigrain_jax.__main__:main")
    ]
    metadata = wheel[f"{info}/METADATA"].decode()
    for extra in PROJECT["optional-dependencies"]:
        assert f"Provides-Extra: {extra}\n" in metadata


def test_the_cost_of_every_extra_is_told():
    page = (ROOT / "docs" / "install.md").read_text("utf-8")
    rows = [line.split("|")[1:4] for line in page.splitlines() if line[:3] == "| `"]
    assert {row[0].strip(" `") for row in rows} == set(PROJECT["optional-dependencies"])
    assert all(row[1].strip() and row[2].strip() for row in rows)


def test_the_citation_is_of_this_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert cited["cff-version"] == "1.2.0"
    assert cited["version"] == __version__
    assert cited["license"] == PROJECT["license"]
    assert {"message", "title", "authors", "references"} <= cited.keys()


def test_the_newest_changes_with_a_date_are_of_this_version():
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings[0] == "## [Unreleased]"
    assert re.fullmatch(
        rf"## \[{re.escape(__version__)}\] - 20\d\d(-\d\d){{2}}", headings[1]
    )


FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_forms_of_issues_ask_for_something(path):
    form = yaml.safe_load(path.read_text("utf-8"))
    if path.name == "config.yml":
        assert form == {"blank_issues_enabled": True}
        return
    assert form["name"] and form["description"]
    asked = [field["id"] for field in form["body"]]
    assert len(set(asked)) == len(asked) >= 2
    assert any(field.get("validations", {}).get("required") for field in form["body"])
    assert all(field["attributes"]["label"] for field in form["body"])


def test_links_are_those_of_the_site(tmp_path):
    pytest.importorskip("mkdocs")
    sys.path.insert(0, str(ROOT / ".ci"))
    try:
        import site_hooks
    finally:
        sys.path.remove(str(ROOT / ".ci"))

    def moved(text, source, uri):
        return site_hooks._relink(text, source, uri, site_hooks._uri)

    readme = "[a](docs/faq.md#b) ![c](docs/images/d.png) [e](examples/f.ipynb) [g](#h)"
    assert moved(readme, "README.md", "index.md") == (
        "[a](faq.md#b) ![c](images/d.png) [e](files/examples/f.ipynb) [g](#h)"
    )
    page = "[a](../BENCHMARKS.md) [b](../README.md#c) [d](../tools/e.py) [f](faq.md)"
    assert moved(page, "docs/tried.md", "tried.md") == (
        "[a](BENCHMARKS.md) [b](index.md#c) [d](files/tools/e.py) [f](faq.md)"
    )
    kept = "```\n[a](../b.md)\n```\n[c](https://example.org/d)"
    assert moved(kept, "docs/tried.md", "tried.md") == kept
