"""The task `embed` by two processes with two devices each, and by one alone."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.configs import small_eval_config

from configs import embed
from multigrain_jax.descriptors.folder import OK, read_head, shard_path
from multigrain_jax.descriptors.index_file import read_index
from multigrain_jax.tasks.embed import run

ROOT = Path(__file__).parents[2]
TIMEOUT = 300
SETTINGS = {"rows_per_shard": 7, "descriptor_dtype": "float32"}


def embed_on_two(photos, checkpoint, workdir):
    """Run the command on two hosts; returns what each of them printed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{probe.getsockname()[1]}"
    flags = "--xla_force_host_platform_device_count=2"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    values = {
        "init_from": checkpoint,
        "data.root": photos,
        "test_size": 48,
        "batch_size": 8,
        **SETTINGS,
        "distributed.coordinator": coordinator,
        "distributed.num_processes": 2,
    }
    command = [sys.executable, "-m", "multigrain_jax.main", "--config"]
    command += ["configs/embed.py", "--workdir", str(workdir)]
    command += [f"--config.{key}={value}" for key, value in values.items()]
    processes = [
        subprocess.Popen(
            [*command, f"--config.distributed.process_index={index}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env=environment,
        )
        for index in range(2)
    ]
    try:
        said = [process.communicate(timeout=TIMEOUT)[0] for process in processes]
        assert [p.returncode for p in processes] == [0, 0], "\n".join(said)
        return said
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def rows_of(workdir):
    folder = workdir / "descriptors"
    return list(read_index(folder, read_head(folder).num_rows))


@pytest.mark.slow
def test_two_hosts_write_what_one_does(photo_folder, tiny_checkpoint, tmp_path):
    photos, one, two = tmp_path / "photos", tmp_path / "one", tmp_path / "two"
    shutil.copytree(photo_folder, photos)
    for name in photos.rglob("[03].png"):
        name.write_bytes(b"no image")
    run(small_eval_config(embed.get_config, photos, tiny_checkpoint, **SETTINGS), one)
    said = embed_on_two(photos, tiny_checkpoint, two)
    assert "18 images, 18 of them new" in said[0]
    assert "images" not in said[1]
    assert rows_of(two) == rows_of(one)
    assert sum(row.status == OK for row in rows_of(two)) == 12
    shards = {row.shard for row in rows_of(one) if row.status == OK}
    assert len(shards) > 1
    for shard in shards:
        expected, found = (
            np.load(shard_path(path / "descriptors", shard)) for path in (one, two)
        )
        np.testing.assert_allclose(found, expected, atol=1e-6)
    results = [json.loads((path / "results.json").read_text()) for path in (one, two)]
    for key in ("num_images", "num_unreadable", "num_new"):
        assert results[0][key] == results[1][key]
    # Each host lists the bad files that it met.
    lists = sorted(two.rglob("skipped.txt"))
    assert lists[0].parent == two / "hosts" / "1"
    found = sorted(line for path in lists for line in path.read_text().splitlines())
    assert found == sorted((one / "skipped.txt").read_text().splitlines())
    assert not (two / "hosts" / "1" / "descriptors").exists()

    shutil.copy(photos / "train" / "ant" / "1.png", photos / "new.png")
    said = embed_on_two(photos, tiny_checkpoint, two)
    assert "19 images, 1 of them new" in said[0]
    assert rows_of(two)[:18] == rows_of(one)
    said = embed_on_two(photos, tiny_checkpoint, two)
    assert "19 images, 0 of them new" in said[0]
    assert len(rows_of(two)) == 19
