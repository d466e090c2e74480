"""The scripts of measure/ start from a clone, and understand what the pages say."""

import ast
import re
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from helpers.scripts import check_understood, main_of

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "measure").glob("*.py"))
NAMES = [f.stem for f in FILES if '__name__ == "__main__"' in f.read_text("utf-8")]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
COMMAND = re.compile(r"python measure/(\w+)\.py([^`\n]*)")
CLONE_FIRST = "sys.path.insert(0, str(Path(__file__).resolve().parent.parent))\n"
FROM_CLONE = re.compile(r"^(?:from|import) (?:measure|multigrain_jax)\b", re.MULTILINE)


def commands() -> list[tuple[str, str]]:
    """(name, arguments) of every command of a script that is written anywhere."""
    texts = [file.read_text(encoding="utf-8") for file in (*PAGES, *FILES)]
    return sorted({c for t in texts for c in COMMAND.findall(t.replace("\\\n", " "))})


@pytest.mark.parametrize("name", NAMES)
def test_help_is_printed(name, capsys):
    with pytest.raises(SystemExit) as exit_:
        main_of(name)(["--help"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out.startswith("usage: ")


@pytest.mark.parametrize(("name", "arguments"), commands(), ids=" ".join)
def test_commands_that_are_written_are_understood(name, arguments, monkeypatch):
    check_understood(name, shlex.split(arguments, comments=True), monkeypatch)


def test_every_script_says_how_it_is_started():
    assert {name for name, _ in commands()} == set(NAMES)
    for name in NAMES:
        text = (ROOT / "measure" / f"{name}.py").read_text(encoding="utf-8")
        assert f"python measure/{name}.py" in ast.get_docstring(ast.parse(text)), name


@pytest.mark.parametrize("name", NAMES)
def test_a_script_looks_in_its_clone_before_it_imports_from_there(name):
    text = (ROOT / "measure" / f"{name}.py").read_text(encoding="utf-8")
    first = FROM_CLONE.search(text)
    expected = 1 if first else 0
    assert text.count(CLONE_FIRST) == text.count("sys.path") == expected
    assert not first or text.index(CLONE_FIRST) < first.start()


def test_a_script_finds_its_clone(tmp_path):
    # Without what an installation in place adds to the path.
    paths = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    script = str(ROOT / "measure" / "search.py")
    code = f"import runpy, sys; sys.path += {paths}; sys.argv = ['x', '--help']\n"
    code += f"runpy.run_path({script!r}, run_name='__main__')"
    command = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--block-mib" in done.stdout
