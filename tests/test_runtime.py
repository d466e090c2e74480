import gc
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from multigrain_jax.errors import InputError
from multigrain_jax.models.multigrain import (
    BACKBONES,
    create_model,
    merge_model,
    split_model,
)
from multigrain_jax.runtime import (
    MOST_PROGRAMS_AT_ONCE,
    compiler_options,
    images_at_once,
    import_for_good,
    look_for_devices,
    num_cores,
    programs_at_once,
    raise_open_files,
    seconds_since_launch,
)


def test_only_a_first_import_is_left_out_of_collections(tmp_path, monkeypatch):
    (tmp_path / "imported_for_good.py").write_text("objects = [[], []]")
    monkeypatch.syspath_prepend(tmp_path)
    frozen = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(set(sys.modules)))
    module, again = (import_for_good("imported_for_good") for _ in range(2))
    del sys.modules["imported_for_good"]
    assert module is again
    (modules,) = frozen
    assert "imported_for_good" in modules


EMBED_ONE = """
import sys
import jax
from multigrain_jax import load_model
found = []
jax.monitoring.register_event_listener(lambda name, **_: found.append(name))
model = load_model(sys.argv[1])
print(float(model.embed([sys.argv[2]], test_size=40).sum()))
for kind in ("hits", "misses"):
    print(found.count(f"/jax/compilation_cache/cache_{kind}"))
"""


@pytest.mark.slow
def test_the_next_process_compiles_nothing(tiny_checkpoint, tmp_path):
    # Of programs that depend on the order of a set, say, it would find none.
    photo = tmp_path / "one.png"
    Image.fromarray(np.full((50, 70, 3), 90, np.uint8)).save(photo)
    variables = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    command = [sys.executable, "-c", EMBED_ONE, str(tiny_checkpoint), str(photo)]
    said = []
    for seed in ("1", "2"):
        variables["PYTHONHASHSEED"] = seed
        done = subprocess.run(command, env=variables, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        said.append(done.stdout.split()[-3:])
    (total, hits, misses), again = said
    assert int(hits) == 0 and int(misses) > 0
    assert again == [total, misses, "0"]


def test_time_since_launch_runs():
    before = seconds_since_launch()
    time.sleep(0.05)
    assert 0.04 < seconds_since_launch() - before < 5
    assert before > 0


def test_depthwise_convolutions_are_left_to_ynnpack():
    kinds = ("xla_cpu_experimental_ynn_fusion_type", "xla_gpu_deterministic_ops")
    found = {
        name: [kind in compiler_options(BACKBONES[name]) for kind in kinds]
        for name in ("resnet18", "nasnetamobile")
    }
    assert found == {"resnet18": [True, False], "nasnetamobile": [False, False]}
    assert kinds[1] in compiler_options(BACKBONES["tiny"], deterministic=True)


def test_only_training_on_a_cpu_stores_every_relu():
    graphdef, variables = split_model(create_model("tiny", num_classes=2))
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), "float32")

    def loss(params, x):
        model = merge_model(graphdef, variables._replace(params=params))
        return model(x).logits.sum()

    def barriers(program):
        options = compiler_options(BACKBONES["tiny"])
        lowered = jax.jit(program, compiler_options=options).lower(
            variables.params, images
        )
        return lowered.compile().as_text().count(" opt-barrier(")

    relus = str(jax.make_jaxpr(loss)(variables.params, images)).count("name=_relu")
    assert relus > 3
    assert [barriers(loss), barriers(jax.grad(loss))] == [0, relus]
    traced = jax.jit(jax.grad(loss)).trace(variables.params, images)
    for platform in ("cuda", "tpu"):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert "optimization_barrier" not in text


def test_a_cpu_takes_fewer_large_images_at_once(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    assert [images_at_once(64, side) for side in (40, 96, 224, 500, 2000)] == [
        64,
        21,
        4,
        1,
        1,
    ]
    monkeypatch.setattr(jax, "device_count", lambda: 4)
    assert [images_at_once(64, side) for side in (112, 224, 500)] == [
        64,
        16,
        4,
    ]
    assert images_at_once(4, 40) == 4
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert images_at_once(64, 2000) == 64
    monkeypatch.setattr(jax, "process_count", lambda: 1)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert images_at_once(64, 2000) == 64


def test_only_a_cpu_that_is_one_device_runs_several_programs_at_once(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)))
    assert jax.device_count() > 1 and programs_at_once() == 1
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    assert programs_at_once() == num_cores() == 6
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(400)))
    assert programs_at_once() == MOST_PROGRAMS_AT_ONCE
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert programs_at_once() == 1


@pytest.fixture
def no_nvidia_smi(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))


def test_the_devices_are_named(no_nvidia_smi, tmp_path, capsys):
    look_for_devices(root=tmp_path)
    assert capsys.readouterr().out == "devices: 8 cpu (cpu)\n"


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("nvidia0", "NVIDIA GPU"),
        ("accel0", "TPU"),
        ("accel/accel0", "accelerator"),
        ("kfd", "AMD GPU"),
    ],
)
def test_an_accelerator_that_is_not_used_is_told(
    no_nvidia_smi, tmp_path, capsys, monkeypatch, file, kind
):
    path = tmp_path / "dev" / file
    path.parent.mkdir(parents=True)
    path.touch()
    look_for_devices(root=tmp_path)
    line = capsys.readouterr().out.splitlines()[1]
    assert line.startswith(f"WARNING: /dev/{file}: ") and "NOT USED" in line
    assert f" {kind} is there" in line and "JAX_PLATFORMS=cpu keeps it out" in line
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    look_for_devices(root=tmp_path)
    assert "WARNING" not in capsys.readouterr().out


def test_a_gpu_that_only_its_program_shows_is_told(tmp_path, capsys, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: A card (UUID: GPU-1)'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    look_for_devices(root=tmp_path)
    assert "WARNING: GPU 0: A card: an NVIDIA GPU" in capsys.readouterr().out
    program.write_text("#!/bin/sh\necho 'no driver'\nexit 9\n")
    look_for_devices(root=tmp_path)
    assert "WARNING" not in capsys.readouterr().out


def test_a_run_without_compilation_is_refused():
    with jax.disable_jit(), pytest.raises(InputError, match="JAX_DISABLE_JIT"):
        look_for_devices()


def test_a_low_limit_of_open_files_is_raised(capsys):
    resource = pytest.importorskip("resource")
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, most))
        raise_open_files()
        wanted = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        said = capsys.readouterr().out
        raise_open_files()
        again = capsys.readouterr().out
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))
    assert 200 < wanted <= 4096
    assert f"the limit was 200 (ulimit -n), and is {wanted} now" in said
    assert again == ""
