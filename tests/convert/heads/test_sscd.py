"""SSCD's files: three layouts, one network, and its descriptors."""

import csv
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from helpers.photos import write_noise_photos
from helpers.torch_heads import classy_keys, sscd

from configs import embed as embed_config
from configs import near_duplicates as near_duplicates_config
from configs import search as search_config
from multigrain_jax.checkpoint import load_checkpoint
from multigrain_jax.convert.layouts import LAYOUTS
from multigrain_jax.descriptors.folder import read_head, shard_path
from multigrain_jax.inference import load_model
from multigrain_jax.tasks import embed, near_duplicates, search

TOLERANCE = 2e-5
NAME = "sscd_disc_mixup.torchvision.pt"
NOTE = "shorter side 288 pixels"


def write_torchscript(torch, network, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        torch.jit.trace(network, torch.ones(1, 3, 64, 64)).save(path)


@pytest.fixture(scope="module")
def network(torch):
    return sscd(torch, name="tiny")


def test_a_resnet_50_gives_the_same_descriptors(
    torch, run_tool, descriptors_differ, tmp_path
):
    network = sscd(torch)
    torch.save(network.state_dict(), tmp_path / NAME)
    code, table, error = run_tool(
        "convert_checkpoint", tmp_path / NAME, tmp_path / "out"
    )
    assert (code, error) == (0, "")
    assert table["descriptor head"] == (
        "sscd: linear 2048 -> 512, unit length (by the file's name)"
    )
    assert (table["backbone"], table["pooling exponent p"]) == ("resnet50", "3")
    assert (table["stripped"], table["source"]) == ("backbone.", f"{NAME} (model zoo)")
    assert table["classes"].startswith("0 ") and NOTE in table["note"]
    assert int(table["keys used"]) == 267  # all but the batch counters
    parameters = sum(value.numel() for value in network.parameters())
    assert table["parameters"] == f"{parameters:,}"

    def describe(images):
        with torch.no_grad():
            return network(images).numpy()

    assert descriptors_differ(tmp_path / "out", describe) < TOLERANCE


def test_all_its_layouts_are_the_same_network(torch, network, run_tool, tmp_path):
    state_dict = network.state_dict()
    torch.save(state_dict, tmp_path / NAME)
    torch.save(classy_keys(state_dict), tmp_path / "anyhow.pt")
    write_torchscript(torch, network, tmp_path / "sscd_disc.torchscript.pt")
    trained = {"state_dict": {f"model.{k}": v for k, v in state_dict.items()}}
    torch.save(trained, tmp_path / "epoch.ckpt")
    digests = set()
    for name, arguments, known in [
        (NAME, (), "(by the file's name)"),
        ("anyhow.pt", (), "(by its keys)"),
        ("sscd_disc.torchscript.pt", (), "(by the file's name)"),
        ("epoch.ckpt", ("--head", "sscd"), "(as asked for)"),
    ]:
        code, table, error = run_tool(
            "convert_checkpoint", tmp_path / name, tmp_path / f"out-{name}", *arguments
        )
        assert (code, error) == (0, "")
        assert table["descriptor head"].endswith(known)
        digests.add(table["digest"])
        notes = load_checkpoint(tmp_path / f"out-{name}").meta["conversion"]
        assert notes["head_known"] == known[1:-1]
    assert len(digests) == 1


def test_of_half_the_bits_all_arrays_are_counted(torch, network, run_tool, tmp_path):
    halves = {
        key: value.half() if value.is_floating_point() else value
        for key, value in network.state_dict().items()
    }
    torch.save(halves, tmp_path / NAME)
    _, table, _ = run_tool("convert_checkpoint", tmp_path / NAME, tmp_path / "out")
    count = sum(value.dtype == torch.float16 for value in halves.values())
    assert table["cast from float16"] == f"{count} arrays, stored as float32"
    arrays = load_checkpoint(tmp_path / "out").model["head"]["0"]
    want = halves["backbone.fc.weight"].float().numpy().T
    np.testing.assert_array_equal(arrays["projection"], want)


def test_a_torchscript_archive_is_said_to_be_one(torch, network, run_tool, tmp_path):
    write_torchscript(torch, network, tmp_path / "sscd.torchscript.pt")
    run_tool("convert_checkpoint", tmp_path / "sscd.torchscript.pt", tmp_path / "out")
    notes = load_checkpoint(tmp_path / "out").meta["converted_from"]["notes"]
    assert notes[0].startswith("a TorchScript archive") and NOTE in notes[1]


def test_the_head_is_shown_and_has_no_place_in_other_layouts(
    torch, network, run_tool, tmp_path
):
    torch.save(network.state_dict(), tmp_path / NAME)
    run_tool("convert_checkpoint", tmp_path / NAME, tmp_path / "out")
    code, rows, _ = run_tool("inspect_checkpoint", tmp_path / "out")
    assert code == 0
    assert rows["descriptor head"] == "sscd: linear 8 -> 512, unit length"
    assert rows["model.head.0.projection"].startswith("float32[8, 512]")
    for layout in LAYOUTS:
        target = tmp_path / "exported.safetensors"
        arguments = tmp_path / "out", target, "--layout", layout
        code, _, error = run_tool("export_torch", *arguments)
        assert code == 2 and "another network's descriptor head" in error
        assert not target.exists()


def test_of_the_same_keys_the_name_or_the_flag_decides(
    torch, network, run_tool, tmp_path
):
    source = tmp_path / "mine.pth"
    torch.save(network.state_dict(), source)
    code, table, _ = run_tool("convert_checkpoint", source, tmp_path / "classes")
    assert (code, table["classes"]) == (0, "512")
    assert "descriptor head" not in table
    assert table["note"].endswith("if the file is SSCD's, give --head sscd")
    named = tmp_path / NAME
    torch.save(network.state_dict(), named)
    arguments = named, tmp_path / "none", "--head", "none"
    code, table, _ = run_tool("convert_checkpoint", *arguments)
    assert (code, table["classes"]) == (0, "512")


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        ({"backbone.fc.bias": None}, (), "fc.bias: missing; a linear layer was"),
        ({"backbone.fc.weight": (512, 100)}, (), "takes 100 channels, expected the"),
        ({"backbone.fc.bias": (7,)}, (), "fc.bias: found [7], expected [512]"),
        ({"backbone.bn1.bias": None}, (), "missing: backbone.bn1.bias"),
        ({"backbone.neck.weight": (3,)}, (), "not expected: backbone.neck.weight"),
        ({"conv1.weight": (8, 3, 7, 7)}, (), "two networks were found in the file"),
        ({}, ("--whitening", "a"), "SSCD's weights have none"),
        ({}, ("--no-classifier",), "has the descriptor head of sscd"),
        ({}, ("--head", "cirtorch"), "found no meta with an architecture"),
        ({}, ("--head", "deep-image-retrieval"), "found no model_options"),
        ({}, ("--head", "none", "--whitening", "a"), "no descriptor head of sscd"),
    ],
)
def test_what_does_not_fit_is_refused(
    change, arguments, message, torch, network, run_tool, tmp_path
):
    state_dict = dict(network.state_dict())
    for key, shape in change.items():
        state_dict.pop(key, None)
        if shape is not None:
            state_dict[key] = torch.ones(shape)
    torch.save(state_dict, tmp_path / NAME)
    code, table, error = run_tool(
        "convert_checkpoint", tmp_path / NAME, tmp_path / "out", *arguments
    )
    assert (code, table) == (2, {})
    assert message in error
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_photos_are_embedded_searched_and_grouped(torch, network, run_tool, tmp_path):
    write_noise_photos(tmp_path / "photos", count=3)
    torch.save(network.state_dict(), tmp_path / NAME)
    run_tool("convert_checkpoint", tmp_path / NAME, tmp_path / "weights")
    config = embed_config.get_config()
    config.init_from = str(tmp_path / "weights")
    config.data.root = str(tmp_path / "photos")
    config.test_size, config.batch_size = 48, 8
    embed.run(config, tmp_path / "embed")
    folder = tmp_path / "embed" / "descriptors"
    settings, found = read_head(folder).settings, np.load(shard_path(folder, 0))
    assert (settings.dim, settings.whitened, found.shape[1]) == (512, False, 512)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=2e-3)
    model = load_model(tmp_path / "weights")
    assert model(np.ones((1, 40, 40, 3), np.float32)).embedding.shape == (1, 512)

    config = search_config.get_config()
    config.database = str(tmp_path / "embed")
    config.queries = str(tmp_path / "copies")
    config.num_neighbours = 2
    shutil.copytree(tmp_path / "photos", tmp_path / "copies")
    search.run(config, tmp_path / "search")
    with (tmp_path / "search" / "results.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["rank"] == "1"]
    assert len(rows) == len(found)
    for row in rows:
        copied, original = Path(row["query"]), Path(row["path"])
        assert copied.parts[-2:] == original.parts[-2:]
        assert float(row["similarity"]) > 0.999

    config = near_duplicates_config.get_config()
    config.database = str(tmp_path / "embed")
    config.threshold = 0.999999
    near_duplicates.run(config, tmp_path / "near")
    assert (tmp_path / "near" / "results.json").is_file()
