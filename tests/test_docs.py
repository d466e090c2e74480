"""The documentation: its links lead somewhere, its names exist, its commands run."""

import ast
import importlib
import io
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.configs import SHORT_TRAINING, small_eval_config
from helpers.photos import encode, noise_photo, turned_jpeg
from PIL import Image

from configs import embed
from multigrain_jax import main
from multigrain_jax.descriptors.folder import (
    DESCRIPTOR_FOLDER,
    HEAD_FILE,
    head_bytes,
    read_head,
)
from multigrain_jax.tasks import embed as run_embed
from multigrain_jax.weights import PUBLISHED

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "BENCHMARKS.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)")
FILE = re.compile(
    r"\b(?:configs|tools|measure|docs|tests|examples)/[\w/.]+\.(?:py|md|ipynb)"
)
TESTED = re.compile(r"<!-- tested -->\n```(\w*)\n(.*?)```", re.DOTALL)
# A tiny network and little work, whatever the page says.
SHRUNK = {
    "train": {**SHORT_TRAINING, "epoch_len_factor": 1.0},
    "eval_classification": {"test_size": 40, "batch_size": 8},
    "eval_retrieval": {"test_size": 40, "batch_size": 8},
    "finetune_pooling": {"test_size": 40},
    "whiten": {"test_size": 40, "batch_size": 8},
    "embed": {"test_size": 40, "batch_size": 8},
    "predict": {"batch_size": 8},
    "search": {"batch_size": 8},
    "near_duplicates": {},
    "health": {},
    "browse": {},
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_files_that_a_page_names_exist(page):
    text = page.read_text(encoding="utf-8")
    links = [link for link in LINK.findall(text) if "://" not in link]
    missing = [link for link in links if not (page.parent / link).exists()]
    # `configs/NAME.py` stands for any of them.
    named = {name for name in FILE.findall(text) if "NAME" not in name}
    missing += [name for name in sorted(named) if not (ROOT / name).exists()]
    assert missing == []


def test_every_published_file_is_linked():
    page = (ROOT / "docs" / "weights.md").read_text(encoding="utf-8")
    links = {f"[`{name}`]({row.address})" for name, row in PUBLISHED.items()}
    assert [link for link in sorted(links) if link not in page] == []


def test_every_promise_of_reliability_names_its_test():
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    promises = page.partition("## What to rely on\n")[2].partition("\n## ")[0]
    # Of the list, and of the table's lines but for its head.
    promises = re.split(r"^- ", promises.partition("\n**Not covered")[0], flags=re.M)[
        1:
    ]
    matrix = page.partition("## The fault matrix\n")[2].partition("\n## ")[0]
    matrix = [line for line in matrix.splitlines() if line.startswith("| ")][1:]
    assert len(promises) >= 7 and len(matrix) > 60
    assert [text for text in (*promises, *matrix) if "::test_" not in text] == []
    named, missing = named_and_missing(page)
    assert named > 40
    assert missing == []


def named_and_missing(text: str) -> tuple[int, list[str]]:
    """How many tests a text names, and those that are not there."""
    named = re.findall(r"`(…|[\w/]+\.py)::(test_\w+)`", text)
    file, missing = "", []
    for path, name in named:
        # "…" is the file that was named last.
        file = file if path == "…" else path
        tests = ROOT / "tests" / file
        if not tests.is_file() or f"def {name}(" not in tests.read_text("utf-8"):
            missing.append(f"{file}::{name}")
    return len(named), missing


def test_every_line_of_fidelity_names_what_shows_it():
    page = (ROOT / "docs" / "fidelity.md").read_text(encoding="utf-8")
    for title, lines in (("Part by part", 25), ("Known departures", 12)):
        section = page.partition(f"## {title}\n")[2].partition("\n## ")[0]
        rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
        assert len(rows) >= lines
        assert [row for row in rows if "::test_" not in row] == []
    named, missing = named_and_missing(page)
    assert named > 50
    assert missing == []


def commands(page: Path) -> list[tuple[str, str]]:
    """(kind, text) of everything that a page marks: "sh" a command, or "python"."""
    found = []
    for language, block in TESTED.findall(page.read_text(encoding="utf-8")):
        if language == "python":
            found.append(("python", block))
        else:
            lines = block.replace("\\\n", " ").splitlines()
            found += [("sh", line) for line in lines if line.strip()]
    return found


def run_command(line: str) -> None:
    """What `python -m multigrain_jax.main …` does, here and with a tiny network."""
    words = shlex.split(line)
    assert words[:4] == ["python", "-m", "multigrain_jax.main", "--config"]
    main.check_config_flags(words[2:])
    recipe, changes, workdir = words[4], {}, main.default_workdir(words[4])
    rest = iter(words[5:])
    for word in rest:
        if word == "--workdir":
            workdir = Path(next(rest))
        else:
            key, _, value = word.removeprefix("--config.").partition("=")
            changes[key] = parse_value(value)
    config = main.load_recipe(recipe)
    config.update_from_flattened_dict(changes | SHRUNK[config.task])
    importlib.import_module(main.TASKS[config.task]).run(config, workdir.absolute())


def parse_value(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def jpeg(rng: np.random.Generator, tint: int) -> bytes:
    return encode(noise_photo(rng, tint=tint), "JPEG")


@pytest.fixture
def home(tmp_path, monkeypatch, tiny_checkpoint):
    """A home folder with what the page speaks of; the working folder is a clone."""
    rng = np.random.default_rng(0)
    files = {f"photos/train/{c}/{i}.jpg": t for t, c in enumerate("xy") for i in "1234"}
    files |= {f"photos/unsorted/{i}.jpg": 2 for i in "12345"}
    for name, tint in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(rng, tint))
    lines = [f"{name.removeprefix('photos/')}\tkind {t}" for name, t in files.items()]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    (tmp_path / "lists").mkdir()
    for part, chosen in (("train", lines[:-2]), ("val", lines[-2:])):
        (tmp_path / "lists" / f"{part}.txt").write_text("\n".join(chosen))
    prepare_tfds(tmp_path / "tensorflow_datasets", rng)
    clone = tmp_path / "clone"
    clone.mkdir()
    (clone / "configs").symlink_to(ROOT / "configs")
    shutil.copytree(tiny_checkpoint, clone / "weights" / "joint_3B_0.5")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(clone)
    return tmp_path


def prepare_tfds(folder: Path, rng: np.random.Generator) -> None:
    import tensorflow_datasets as tfds

    class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(encoding_format="jpeg"),
                "label": tfds.features.ClassLabel(names=["cat", "dog"]),
            }
            features = tfds.features.FeaturesDict(features)
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {name: self._generate_examples() for name in ("train", "test")}

        def _generate_examples(self):
            for n in range(4):
                yield n, {"image": io.BytesIO(jpeg(rng, n % 2)), "label": n % 2}

    Tiny(data_dir=str(folder), file_format="array_record").download_and_prepare()


def test_every_command_that_is_run_is_a_small_one():
    lines = [
        text for kind, text in commands(ROOT / "docs" / "own_data.md") if kind == "sh"
    ]
    recipes = {shlex.split(line)[4] for line in lines}
    assert len(recipes) >= 8
    tasks = {main.load_recipe(str(ROOT / recipe)).task for recipe in recipes}
    assert sorted(tasks - SHRUNK.keys()) == []


@pytest.mark.slow
def test_the_commands_for_own_photos_run(home):
    marked = commands(ROOT / "docs" / "own_data.md")
    assert len(marked) >= 12
    for kind, text in marked:
        if kind == "python":
            namespace = {}
            exec(text, namespace)
            assert namespace["similarity"].shape == (5, 5)
        else:
            run_command(text)
    workdirs = home / "clone" / "workdirs"
    trained = ("folder", "unsorted", "tfds", "list", "lists", "finetuned")
    for name in (*trained, "whiten", "search", "predict"):
        assert (workdirs / name / "results.json").exists(), name
    for name in ("folder", "search", "near_duplicates"):
        assert (workdirs / name / "report.html").exists(), name


def make_older(folder):
    """Give a folder of descriptors the form that it had before photos' decoding."""
    head = read_head(folder)
    settings = head.settings._replace(decoding=None)
    (folder / HEAD_FILE).write_bytes(head_bytes(head._replace(settings=settings)))


@pytest.mark.parametrize(
    ("data", "is_older", "sizes"),
    [
        ({"decode": "exact"}, False, 100),
        ({"decode": "fast"}, False, 100),
        ({"decoding": "plain", "decode": "exact"}, False, 100),
        ({"decoding": "plain", "decode": "fast"}, False, 100),
        ({"decoding": "upright"}, False, (64, 100)),
        ({"decoding": "upright", "decode": "exact"}, True, 100),
        ({"background": "red", "depth": "maximum"}, False, (100, 40, 64)),
    ],
)
def test_howto_embeds_a_photo_as_a_folder_was_embedded(
    data, is_older, sizes, tiny_checkpoint, golden_dir, tmp_path
):
    page = (ROOT / "docs" / "howto.md").read_text(encoding="utf-8")
    section = page.partition("## Have all descriptors as one table\n")[2]
    section = section.partition("\n## ")[0]
    code = "".join(re.findall(r"```python\n(.*?)```", section, re.DOTALL))
    root = tmp_path / "photos"
    root.mkdir()
    # Half of it is 320 wide; the turn of one and the veil of the other count or not.
    with Image.open(golden_dir / "images" / "china.jpg") as stored:
        photo = root / "one.jpg"
        photo.write_bytes(turned_jpeg(stored, 6))
        veil = Image.linear_gradient("L").resize(stored.size)
        stored.putalpha(veil)
        stored.save(root / "two.png")
    places = {
        "workdirs/embed": str(tmp_path / "w"),
        "weights/joint_3B_0.5": str(tiny_checkpoint),
        '["one.jpg"]': "paths",
    }
    changes = {"test_size": sizes, "test_mode": "rect", "data": data}
    changes["descriptor_dtype"] = "float32"
    config = small_eval_config(embed.get_config, root, tiny_checkpoint, **changes)
    run_embed.run(config, tmp_path / "w")
    if is_older:
        make_older(tmp_path / "w" / DESCRIPTOR_FOLDER)
    for before, now in places.items():
        assert before in code
        code = code.replace(before, now)
    found = {}
    exec(code, found)
    assert (found["made"].decoding is None) == is_older
    np.testing.assert_allclose(found["query"], found["vectors"], atol=1e-6)
    # Decoding it in the other way would not do.
    other = {"exact": "fast", "fast": "exact"}[found["made"].decode]
    shifted = found["model"].embed(
        [photo],
        test_size=sizes,
        mode="rect",
        decoding=found["made"].decoding,
        decode=other,
    )
    row = found["paths"].index(str(photo))
    assert np.abs(shifted[0] - found["vectors"][row]).max() > 1e-5
