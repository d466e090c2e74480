"""The serving file: loaded with JAX alone, it gives what the model gives."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import multigrain_jax
from tools import export_serving

LOADER = """
import sys
import jax, numpy as np
from jax import export
with open(sys.argv[1], "rb") as file:
    model = export.deserialize(bytearray(file.read()))
assert not any(name.startswith(("multigrain", "flax")) for name in sys.modules)
for name in sys.argv[2:]:
    np.savez(name + ".out", **model.call(np.load(name)))
"""


def test_any_batch_size_gives_the_models_numbers(tiny_checkpoint, tmp_path, capsys):
    file = tmp_path / "new" / "tiny.mgserve"
    arguments = [str(tiny_checkpoint), str(file), "--test-size", "40"]
    assert export_serving.main([*arguments, "--platforms", "cpu"]) == 0
    assert "uint8 [B, 40, 40, 3], for cpu" in capsys.readouterr().out
    rng = np.random.default_rng(0)
    batches = [rng.integers(0, 255, (b, 40, 40, 3), np.uint8) for b in (1, 3)]
    names = [str(tmp_path / f"{number}.npy") for number in range(2)]
    for name, batch in zip(names, batches, strict=True):
        np.save(name, batch)
    subprocess.run([sys.executable, "-c", LOADER, str(file), *names], check=True)
    model = multigrain_jax.load_model(tiny_checkpoint)
    row = multigrain_jax.BACKBONES["tiny"]
    for name, batch in zip(names, batches, strict=True):
        scaled = batch.astype(np.float32) / np.float32(255)
        images = (scaled - np.float32(row.mean)) / np.float32(row.std)
        expected = model(images)._asdict()
        found = np.load(name + ".out.npz")
        assert set(found.files) == set(expected)
        for key, value in expected.items():
            np.testing.assert_allclose(found[key], value, rtol=2e-5, atol=2e-6)


def test_an_onnx_model_gives_the_models_numbers(tiny_checkpoint, tmp_path, capsys):
    onnxruntime = pytest.importorskip("onnxruntime")
    file = tmp_path / "tiny.onnx"
    arguments = [str(tiny_checkpoint), str(file), "--test-size", "40"]
    assert export_serving.main([*arguments, "--batch-size", "2"]) == 0
    assert "uint8 [2, 40, 40, 3], for engines of ONNX" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(file)
    batch = np.random.default_rng(0).integers(0, 256, (2, 40, 40, 3), np.uint8)
    names = [each.name for each in session.get_outputs()]
    found = dict(zip(names, session.run(names, {"images": batch}), strict=True))
    row = multigrain_jax.BACKBONES["tiny"]
    scaled = batch.astype(np.float32) / np.float32(255)
    images = (scaled - np.float32(row.mean)) / np.float32(row.std)
    expected = multigrain_jax.load_model(tiny_checkpoint)(images)._asdict()
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(
    ("file", "more", "message"),
    [
        ("a.onnx", ["--platforms", "cpu"], "--platforms: found cpu for an ONNX model"),
        (
            "a.mgserve",
            ["--batch-size", "8"],
            "--batch-size: found 8 for a file for JAX",
        ),
        ("a.ONNX", ["--batch-size", "0"], "--batch-size: found 0, expected at least 1"),
    ],
)
def test_what_the_file_does_not_have_is_refused(
    tiny_checkpoint, tmp_path, capsys, file, more, message
):
    arguments = [str(tiny_checkpoint), str(tmp_path / file), *more]
    assert export_serving.main(arguments) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_all_platforms_are_in_one_file_by_default(tiny_checkpoint):
    opened = export_serving.open_model(tiny_checkpoint)
    platforms = list(export_serving.PLATFORMS)
    exported = export_serving.export_model(opened, 33, platforms=platforms)
    assert exported.platforms == export_serving.PLATFORMS
    assert exported.in_avals[0].shape[1:] == (33, 33, 3)
    assert "batch" in str(exported.in_avals[0].shape[0])


def test_the_loader_of_the_documentation_works(tiny_checkpoint, photo_folder, tmp_path):
    text = (Path(__file__).parents[1] / "docs" / "serving.md").read_text()
    loader = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
    file = tmp_path / "new" / "tiny.mgserve"
    assert export_serving.main([str(tiny_checkpoint), str(file)]) == 0
    upright, sideways = next(photo_folder.rglob("*.png")), tmp_path / "sideways.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(upright) as photo:
        photo.transpose(Image.Transpose.ROTATE_90).save(sideways, exif=exif)
    loader += "np.save(sys.argv[3], output['embedding'])"
    found = []
    for path in (upright, sideways):
        output = tmp_path / f"{path.stem}.npy"
        done = subprocess.run(
            [sys.executable, "-c", loader, str(file), str(path), str(output)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert re.fullmatch(r"\(1, \d+\) [012]\n", done.stdout)
        found.append(np.load(output))
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize(
    ("checkpoint", "more", "message"),
    [("nothing", [], "checkpoint"), (None, ["--test-size", "8"], "at least 32")],
)
def test_bad_input_writes_nothing(
    tiny_checkpoint, tmp_path, capsys, checkpoint, more, message
):
    file = tmp_path / "out"
    where = tiny_checkpoint if checkpoint is None else tmp_path / checkpoint
    assert export_serving.main([str(where), str(file), *more]) == 2
    assert message in capsys.readouterr().err
    assert not file.exists()
