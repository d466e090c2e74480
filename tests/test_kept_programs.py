"""Programs that are compiled once and kept for the next process."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from jax._src import compilation_cache

import multigrain_jax
from multigrain_jax.runtime import keep_compiled_programs

PROGRAM = """
import jax, jax.numpy as jnp
from multigrain_jax.runtime import keep_compiled_programs
folder = keep_compiled_programs()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
found = []
jax.monitoring.register_event_listener(lambda name, **_: found.append(name))
print(folder, float(jax.jit(lambda x: jnp.sin(x) + 1)(0.0)))
print("hits", found.count("/jax/compilation_cache/cache_hits"))
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty cache folder of the user, and JAX without a folder of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    names = ("compilation_cache_dir", "persistent_cache_min_compile_time_secs")
    kept = {f"jax_{name}": getattr(jax.config, f"jax_{name}") for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    # What removes damaged entries goes with the folder.
    read = compilation_cache.get_executable_and_time
    monkeypatch.setattr(compilation_cache, "get_executable_and_time", read)
    yield tmp_path
    for name, value in kept.items():
        jax.config.update(name, value)


def run_program(home, **variables):
    environment = {**os.environ, "XDG_CACHE_HOME": str(home)}
    del environment["JAX_COMPILATION_CACHE_DIR"]  # the tests' own
    environment |= {"PYTHONPATH": str(Path(__file__).parents[1]), **variables}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *said, result, hits = done.stdout.splitlines()
    return result, int(hits.removeprefix("hits ")), said, done.stderr


def damage_entries(folder):
    entries = sorted(folder.glob("*-cache"))
    assert entries
    for path in entries:
        path.write_bytes(path.read_bytes()[:200])
    return entries


@pytest.mark.slow
def test_programs_are_kept_and_a_damaged_entry_is_compiled_anew_once(tmp_path):
    folder = tmp_path / "multigrain_jax" / "compiled"
    assert run_program(tmp_path) == (f"{folder} 1.0", 0, [], "")
    _, num_kept, *said = run_program(tmp_path)
    assert num_kept and said == [[], ""]
    entries = damage_entries(folder)
    result, num_hits, said, warned = run_program(tmp_path)
    assert (result, num_hits, warned) == (f"{folder} 1.0", 0, "")
    assert len(said) == len(entries)
    for line in said:
        assert line.startswith("the kept program jit_") and "is damaged (" in line
    assert run_program(tmp_path) == (f"{folder} 1.0", num_kept, [], "")


@pytest.mark.slow
def test_damaged_entries_of_a_folder_that_jax_is_told_are_left_alone(tmp_path):
    folder = tmp_path / "mine"
    run_program(tmp_path, JAX_COMPILATION_CACHE_DIR=str(folder))
    entries = damage_entries(folder)
    _, num_hits, said, warned = run_program(
        tmp_path, JAX_COMPILATION_CACHE_DIR=str(folder)
    )
    assert num_hits == 0 and said == [] and "UserWarning" in warned
    assert {path.stat().st_size for path in entries} == {200}


def entry_that_fails(home, monkeypatch, error):
    """An entry whose reading fails, and what JAX reads it with afterwards."""

    def read(cache_key):
        if entry.exists():
            raise error
        return "none"

    monkeypatch.setattr(compilation_cache, "get_executable_and_time", read)
    folder = keep_compiled_programs()
    assert folder == home / "multigrain_jax" / "compiled"
    entry = folder / "jit_step-0123-cache"
    entry.write_bytes(b"")
    return entry, lambda: compilation_cache.get_executable_and_time("jit_step-0123")


def test_a_damaged_entry_is_removed_and_told_in_a_line(home, monkeypatch, capsys):
    error = RuntimeError("no program\nat all")
    entry, read = entry_that_fails(home, monkeypatch, error)
    assert read() == "none" and not entry.exists()
    assert capsys.readouterr().out == (
        "the kept program jit_step is damaged (no program): it is compiled anew\n"
    )


@pytest.mark.parametrize("error", [PermissionError("locked"), MemoryError()])
def test_an_entry_that_cannot_be_read_now_stays(home, monkeypatch, error):
    entry, read = entry_that_fails(home, monkeypatch, error)
    with pytest.raises(type(error)):
        read()
    assert entry.exists()


def test_an_entry_stays_once_jax_is_told_another_folder(home, monkeypatch):
    entry, read = entry_that_fails(home, monkeypatch, RuntimeError("no program"))
    jax.config.update("jax_compilation_cache_dir", str(home / "other"))
    with pytest.raises(RuntimeError, match="no program"):
        read()
    assert entry.exists()


def test_programs_are_kept_by_a_jax_that_reads_them_otherwise(home, monkeypatch):
    monkeypatch.delattr(compilation_cache, "get_executable_and_time")
    assert keep_compiled_programs() == home / "multigrain_jax" / "compiled"
    assert not hasattr(compilation_cache, "get_executable_and_time")


def test_the_folder_is_the_users_cache(home):
    assert keep_compiled_programs() == home / "multigrain_jax" / "compiled"
    assert jax.config.jax_compilation_cache_dir == str(
        home / "multigrain_jax" / "compiled"
    )


def test_a_folder_that_jax_is_told_stays(home):
    jax.config.update("jax_compilation_cache_dir", str(home / "other"))
    assert keep_compiled_programs() == home / "other"


def test_keeping_can_be_turned_off(home):
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        assert keep_compiled_programs() is None
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
    assert jax.config.jax_compilation_cache_dir is None


def test_a_folder_that_cannot_be_made_is_no_error(home, capsys):
    (home / "multigrain_jax").write_text("a file in its place")
    assert keep_compiled_programs() is None
    assert "are not kept" in capsys.readouterr().out
    assert jax.config.jax_compilation_cache_dir is None


def test_programs_of_a_loaded_model_are_kept(home, tiny_checkpoint):
    multigrain_jax.load_model(tiny_checkpoint)
    assert jax.config.jax_compilation_cache_dir == str(
        home / "multigrain_jax" / "compiled"
    )
