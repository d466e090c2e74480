"""Names that steer a terminal, through every task: none of them reaches it."""

import re
from functools import partial
from unittest import mock

import pytest
from helpers.configs import small_eval_config, small_train_config
from helpers.photos import encode, noise_photo

from configs import (
    browse,
    embed,
    eval_base,
    eval_retrieval,
    finetune_p,
    health,
    index,
    near_duplicates,
    predict,
    search,
    sweep_p,
    whiten,
)
from multigrain_jax.browse import server
from multigrain_jax.checkpoint import CheckpointStore
from multigrain_jax.errors import InputError, printable
from multigrain_jax.main import TASKS
from multigrain_jax.models.multigrain import create_model, split_model
from multigrain_jax.tasks import browse as run_browse
from multigrain_jax.tasks import (
    embed as run_embed,
)
from multigrain_jax.tasks import (
    eval_classification,
    finetune_pooling,
    sweep_pooling,
    train,
)
from multigrain_jax.tasks import (
    eval_retrieval as run_retrieval,
)
from multigrain_jax.tasks import health as run_health
from multigrain_jax.tasks import index as run_index
from multigrain_jax.tasks import near_duplicates as run_near_duplicates
from multigrain_jax.tasks import predict as run_predict
from multigrain_jax.tasks import search as run_search
from multigrain_jax.tasks import whiten as run_whiten

# A sequence that clears the screen, a line of one's own, a turn of direction, a
# character of eight bits that begins a sequence, and a byte that is no UTF-8.
STEERING = "\x1b[2J\nFORGED \u202e\x9b31m \udcff % #"
CLASSES = [f"{kind} {STEERING}" for kind in ("ant", "bee", "cow")]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Photos of three classes, one that is none and one with a note, and a model."""
    base = tmp_path_factory.mktemp("steering")
    for split in ("train", "val"):
        for number, name in enumerate(CLASSES):
            folder = base / "photos" / split / name
            folder.mkdir(parents=True)
            for photo in range(4):
                data = encode(noise_photo(4 * number + photo, (40, 40)), "JPEG")
                (folder / f"{photo}{STEERING}.jpg").write_bytes(data)
            (folder / f"bad{STEERING}.jpg").write_bytes(b"no image")
            (folder / f"noted{STEERING}.jpg").write_bytes(data[:-2])
        (base / "photos" / split / f"empty{STEERING}").mkdir()
    _, variables = split_model(create_model("tiny", num_classes=3, seed=1))
    meta = {"backbone": "tiny", "num_classes": 3, "class_names": CLASSES}
    store = CheckpointStore(base / "model")
    store.save(5, model=variables, meta={**meta, "config": None})
    store.close()
    return base


def evaluate(recipe, task, base, workdir, **changes):
    config = small_eval_config(recipe, base / "photos", base / "model", **changes)
    task.run(config, workdir)


def train_there(base, workdir):
    config = small_train_config(base / "photos", num_epochs=1, max_skipped_fraction=0.9)
    train.run(config, workdir)


def search_there(base, workdir):
    evaluate(embed.get_config, run_embed, base, base / "embedded")
    config = search.get_config()
    config.database = config.queries = str(base / "embedded")
    run_search.run(config, workdir)


def find_near_duplicates(base, workdir):
    evaluate(embed.get_config, run_embed, base, base / "embedded")
    config = near_duplicates.get_config()
    config.database, config.threshold = str(base / "embedded"), -1.0
    run_near_duplicates.run(config, workdir)


def look_at_health(base, workdir):
    evaluate(embed.get_config, run_embed, base, base / "embedded")
    config = health.get_config()
    config.database = str(base / "embedded")
    run_health.run(config, workdir)


def begin_to_browse(base, workdir):
    evaluate(embed.get_config, run_embed, base, base / "embedded")
    config = browse.get_config()
    config.database, config.open_browser = str(base / "embedded"), False
    with mock.patch.object(server, "serve"):
        run_browse.run(config, workdir)


def index_there(base, workdir):
    pytest.importorskip("faiss", reason="faiss is not installed")
    evaluate(embed.get_config, run_embed, base, base / "embedded")
    config = index.get_config()
    config.database = str(base / "embedded")
    run_index.run(config, workdir)


RUNS = {
    "browse": begin_to_browse,
    "train": train_there,
    "embed": partial(evaluate, embed.get_config, run_embed),
    "search": search_there,
    "health": look_at_health,
    "index": index_there,
    "near_duplicates": find_near_duplicates,
    "eval_classification": partial(
        evaluate, eval_base.get_config, eval_classification, data={"split": "val"}
    ),
    "eval_retrieval": partial(
        evaluate, partial(eval_retrieval.get_config, "folder"), run_retrieval
    ),
    "predict": partial(evaluate, predict.get_config, run_predict),
    "whiten": partial(evaluate, whiten.get_config, run_whiten),
    "finetune_pooling": partial(evaluate, finetune_p.get_config, finetune_pooling),
    "sweep_pooling": partial(
        evaluate,
        sweep_p.get_config,
        sweep_pooling,
        test_sizes=(40,),
        pooling_exponent=(1.0, 3.0),
    ),
}


# Letters, line breaks of one's own messages, and what a progress bar needs.
HARMLESS = re.compile("[\n\r\t -~\u00a0-\u1fff\u2010-\u2027\u2030-\u2059]*")


def check(text):
    assert HARMLESS.fullmatch(text), text
    assert not re.search("^FORGED", text, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("task", sorted(TASKS))
def test_no_name_steers_the_terminal(base, tmp_path, capsys, task):
    RUNS[task](base, tmp_path / "run")
    printed = capsys.readouterr()
    check(printed.out + printed.err)
    for path in tmp_path.glob("run/*.txt"):
        check(path.read_text(encoding="utf-8"))
    # What is to be said of these photos has been said.
    told = printable(STEERING)
    of_a_database = ("browse", "health", "index", "near_duplicates", "search")
    assert told in printed.out or task in of_a_database
    if task not in of_a_database:
        (skipped,) = tmp_path.glob("run/skipped.txt")
        lines = skipped.read_text(encoding="utf-8").splitlines()
        assert lines and all(told in line for line in lines)


def test_names_of_others_in_an_error_are_written_out():
    error = InputError("a\x1b[2J \u202e \udcff\n  b")
    assert str(error) == "a\\x1b[2J \\u202e \\udcff\n  b"
    assert printable("ä\n") == "ä\\n"
