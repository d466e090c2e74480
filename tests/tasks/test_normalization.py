"""Collections by which a search normalises its scores."""

import shutil

import pytest

from configs import search
from multigrain_jax.descriptors.index import DescriptorIndex
from multigrain_jax.errors import InputError
from multigrain_jax.tasks.normalization import open_normalization


def normalization(database, training):
    config = search.get_config()
    config.score_normalization.update({"training": training, "num_neighbours": 3})
    return open_normalization(config.to_dict(), DescriptorIndex.open(database))


def test_scores_are_normalised_by_a_collection_that_is_named(database, tmp_path):
    assert normalization(database, "") is None
    shutil.copytree(database, tmp_path / "other")
    found = normalization(database, str(tmp_path / "other"))
    assert found is not None and len(found.training) == 21
    assert found[1:] == (3, 2.0, "nth")


def test_a_collection_of_another_size_normalises_nothing(database, larger_collection):
    with pytest.raises(InputError, match="test_size: the folder has 64, this run 48"):
        normalization(database, str(larger_collection))


def test_the_database_that_normalises_its_own_scores_is_told(
    database, tmp_path, capsys
):
    shutil.copytree(database, tmp_path / "other")
    normalization(database, str(tmp_path / "other"))
    assert capsys.readouterr().out == ""
    link = tmp_path / "link"
    link.symlink_to(database)
    for path in (database, database / "descriptors", link):
        assert normalization(database, str(path)) is not None
        assert capsys.readouterr().out == (
            "score_normalization.training: scores are normalised by the database's own "
            f"photos, found in {path}, where a third collection was expected: give one "
            "of other photos with --config.score_normalization.training=DIR\n"
        )
