"""Where things are kept between runs."""

from pathlib import Path

from multigrain_jax.data.cache import cache_folder


def test_the_cache_folder_may_be_moved(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder("weights") == Path("/x/multigrain_jax/weights")
    monkeypatch.setenv("MULTIGRAIN_CACHE", "~/kept")
    assert cache_folder("weights") == tmp_path / "kept" / "weights"
    monkeypatch.setenv("MULTIGRAIN_CACHE", "")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder("weights") == tmp_path / ".cache" / "multigrain_jax" / "weights"
