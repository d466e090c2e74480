"""A conversion is written only if the descriptor is the one that its owner brings."""

import io

import numpy as np
import pytest
from PIL import Image

from multigrain_jax.checkpoint import load_checkpoint

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZE = 64


def torch_descriptor(torch, weights, image):
    """The tiny ResNet and the mean of its features, in PyTorch; image [3, H, W]."""
    functional = torch.nn.functional
    w = {key: torch.from_numpy(np.asarray(value)) for key, value in weights.items()}

    def norm(x, name):
        return functional.batch_norm(
            x,
            *(w[f"{name}.{leaf}"] for leaf in ("running_mean", "running_var")),
            *(w[f"{name}.{leaf}"] for leaf in ("weight", "bias")),
        )

    x = functional.conv2d(image[None], w["conv1.weight"], stride=2, padding=3)
    x = functional.max_pool2d(norm(x, "bn1").relu(), 3, stride=2, padding=1)
    for block in ("layer1.0", "layer1.1"):
        y = functional.conv2d(x, w[f"{block}.conv1.weight"], padding=1)
        y = norm(y, f"{block}.bn1").relu()
        y = functional.conv2d(y, w[f"{block}.conv2.weight"], padding=1)
        x = (norm(y, f"{block}.bn2") + x).relu()
    return x.mean((2, 3))[0].numpy()


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 255, (70, 90, 3), np.uint8)
    Image.fromarray(pixels).resize((120, 90)).save(path)
    return path


@pytest.fixture(scope="module")
def wanted(torch, zoo, photo):
    """The photo's descriptor by Pillow and PyTorch: shorter side 73, then a crop."""
    with Image.open(photo) as image:
        scale = int(SIZE * 256 / 224) / min(image.size)
        size = [int(side * scale) for side in image.size]
        resized = image.convert("RGB").resize(size, Image.Resampling.BILINEAR)
    left, top = (round((side - SIZE) / 2) for side in size)
    pixels = np.asarray(resized.crop((left, top, left + SIZE, top + SIZE)), np.float32)
    image = (pixels / 255 - np.float32(MEAN)) / np.float32(STD)
    return torch_descriptor(torch, zoo, torch.from_numpy(image.transpose(2, 0, 1)))


@pytest.fixture
def verify(torch, as_tensors, zoo, photo, run_tool, tmp_path):
    """(bytes of the reference, more arguments) -> what the tool gives; its folder."""
    source, reference = tmp_path / "file.pth", tmp_path / "reference.npy"
    torch.save(as_tensors(zoo), source)

    def run(content, *arguments, photo=photo):
        reference.write_bytes(content)
        before = sorted(tmp_path.rglob("*"))
        code, table, error = run_tool(
            "convert_checkpoint",
            source,
            tmp_path / "out",
            "--verify",
            photo,
            reference,
            "--test-size",
            SIZE,
            *arguments,
        )
        if code:
            assert (code, table) == (2, {})
            assert sorted(tmp_path.rglob("*")) == before
        return code, table.get("verified", error)

    return run


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def unit(vector):
    return vector / np.linalg.norm(vector)


KINDS = {
    "raw": (lambda x: x, "embedding of photo.png (square, 64 pixels)"),
    "of unit length": (unit, "normalized_embedding of photo.png (square, 64 pixels)"),
    "a batch of one": (lambda x: x[None], "embedding of"),
    "as a map": (lambda x: x[:, None, None].astype(np.float64), "embedding of"),
    "in half floats": (lambda x: unit(x).astype(np.float16), "normalized_embedding"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_descriptor_is_said_to_be_so(kind, verify, wanted, tmp_path):
    change, says = KINDS[kind]
    code, verified = verify(npy(change(wanted)))
    assert code == 0, verified
    assert verified.startswith(says)
    assert "and reference.npy: cosine 1.000000, largest difference" in verified
    meta = load_checkpoint(tmp_path / "out").meta
    assert meta["conversion"]["verified"] == verified


def test_another_descriptor_is_refused_and_nothing_is_written(verify, wanted):
    lines = [verify(npy(changed))[1] for changed in (-wanted, 1.01 * wanted)]
    lines.append(verify(npy(unit(wanted) + np.eye(8)[0] * 0.003))[1])
    lines += [
        verify(npy(wanted), *arguments)[1]
        for arguments in (("--test-mode", "rect"), ("--test-size", 80))
    ]
    for line in lines:
        assert "does not agree: cosine" in line and "Nothing was written" in line
    assert "cosine -1.000000" in lines[0] and "difference 9.9e-03" in lines[1]


def test_what_is_no_descriptor_is_refused(verify, wanted, photo, tmp_path):
    archive = io.BytesIO()
    np.savez(archive, wanted)
    pickled = io.BytesIO()
    np.save(pickled, np.array([{}], object), allow_pickle=True)
    huge = npy(wanted).replace(b"(8,), }", b"(1<<60,)")
    for content, message in (
        (npy(wanted[:5]), "found 5 numbers, expected the 8"),
        (npy(np.stack([wanted, wanted])), "expected the descriptor of one photo"),
        (npy(np.where(wanted > 0, np.nan, wanted)), "of finite numbers"),
        (npy(np.zeros(8)), "that are not all 0"),
        (npy(np.arange(8)), "a .npy file of floats was expected, found int64"),
        (archive.getvalue(), "an archive of several arrays"),
        (pickled.getvalue(), "a .npy file of one descriptor was expected"),
        (npy(wanted)[:-4], "a .npy file of one descriptor was expected"),
        (huge, "a .npy file of one descriptor was expected"),
        (b"", "a .npy file of one descriptor was expected"),
    ):
        code, error = verify(content)
        assert code == 2 and message in error, error
    for other in (tmp_path / "none.jpg", tmp_path / "reference.npy"):
        code, error = verify(npy(wanted), photo=other)
        assert code == 2 and "a photo was expected" in error


def test_a_published_name_is_not_verified_by_a_photo(run_tool, photo, capsys):
    with pytest.raises(SystemExit) as ended:
        run_tool("convert_checkpoint", "joint_3B_0.5", "--verify", photo, photo)
    assert ended.value.code == 2
    assert "a name takes no options" in capsys.readouterr().err
