import io

import numpy as np
import pytest
from PIL import Image

from multigrain_jax.data.skips import SkipLog
from multigrain_jax.data.sources.folder import ImageFile
from multigrain_jax.data.sources.open import FileSource
from multigrain_jax.errors import InputError


@pytest.fixture
def source(tmp_path):
    encoded = io.BytesIO()
    Image.new("RGB", (8, 8)).save(encoded, "JPEG")
    files = []
    for number in range(10):
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(b"" if number in (2, 5, 7) else encoded.getvalue())
        files.append(ImageFile(str(path), 0))
    return FileSource(
        files, class_names=["a"], apply_exif_orientation=True, local_cache_dir=None
    )


def test_each_image_is_listed_once_with_its_reason(source, tmp_path, capsys):
    log = SkipLog(source, workdir=tmp_path, max_fraction=0.3)
    log.record(np.array([-1, 2, -1, 2]))
    log.record(np.array([2, 5]))
    lines = (tmp_path / "skipped.txt").read_text().splitlines()
    assert [line.split(": ")[0] for line in lines] == [
        source.describe(2),
        source.describe(5),
    ]
    assert all("empty file" in line for line in lines)
    assert capsys.readouterr().out.count("skipped ") == 2


def test_a_class_of_which_nothing_can_be_read_is_named(source, capsys):
    source.labels = np.array([0, 0, 1, 0, 0, 1, 0, 2, -1, -1], np.int32)
    source.class_names = ["ant", "bee", "cow"]
    log = SkipLog(source, workdir=None, max_fraction=1.0)
    log.record(np.array([2, 0, 8]))
    assert "none of its images" not in capsys.readouterr().out
    log.record(np.array([5, 7, 7]))
    log.record(np.array([5, 9]))
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("class")] == [
        "class 'bee': none of its images could be read",
        "class 'cow': none of its images could be read",
    ]


def test_a_resumed_run_counts_on(source, tmp_path):
    SkipLog(source, workdir=tmp_path, max_fraction=0.2).record(np.array([2, 5]))
    resumed = SkipLog(source, workdir=tmp_path, max_fraction=0.2)
    resumed.record(np.array([5]))
    assert len((tmp_path / "skipped.txt").read_text().splitlines()) == 2
    with pytest.raises(InputError, match="3 of 10 images"):
        resumed.record(np.array([7]))


def test_too_many_end_the_run_and_name_the_files(source):
    log = SkipLog(source, workdir=None, max_fraction=0.1)
    log.record(np.array([2]))
    with pytest.raises(InputError) as raised:
        log.record(np.array([7]))
    assert source.describe(2) in str(raised.value)
    assert source.describe(7) in str(raised.value)
    assert "max_skipped_fraction" in str(raised.value)


def test_nothing_is_written_without_a_workdir(source, tmp_path):
    SkipLog(source, workdir=None, max_fraction=1.0).record(np.array([2]))
    assert not (tmp_path / "skipped.txt").exists()
