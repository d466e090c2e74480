import io

import numpy as np
import pytest
from PIL import Image

from multigrain_jax import growing_file
from multigrain_jax.data.decoding import VIEWER
from multigrain_jax.data.skips import SkipLog
from multigrain_jax.data.sources.folder import ImageFile
from multigrain_jax.data.sources.open import FileSource
from multigrain_jax.errors import InputError
from multigrain_jax.growing_file import close_lists


@pytest.fixture
def source(tmp_path):
    encoded = io.BytesIO()
    Image.new("RGB", (8, 8)).save(encoded, "JPEG")
    files = []
    for number in range(10):
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(b"" if number in (2, 5, 7) else encoded.getvalue())
        files.append(ImageFile(str(path), 0))
    return FileSource(files, class_names=["a"], decoding=VIEWER, local_cache_dir=None)


def test_what_another_host_has_listed_is_not_listed_again(source, tmp_path):
    first, second = tmp_path / "run", tmp_path / "run" / "hosts" / "1"
    second.mkdir(parents=True)
    log = SkipLog(source, workdir=first, max_fraction=1)
    log.record(np.array([2]))
    others = [first / "skipped.txt", first / "hosts" / "2" / "skipped.txt"]
    log = SkipLog(source, workdir=second, max_fraction=1, other_lists=others)
    log.record(np.array([2, 5]))
    close_lists()
    (line,) = (second / "skipped.txt").read_text().splitlines()
    assert line.startswith(source.describe(5))


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


def test_an_image_is_listed_once_however_many_runs_meet_it(source, tmp_path):
    for _ in range(2):
        log = SkipLog(source, workdir=tmp_path, max_fraction=0.2)
        log.record(np.array([2, 5]))
    assert len((tmp_path / "skipped.txt").read_text().splitlines()) == 2


@pytest.fixture
def many(tmp_path):
    """Forty files, none of which is an image."""
    files = []
    for number in range(40):
        path = tmp_path / "many" / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"none")
        files.append(ImageFile(str(path), 0))
    return FileSource(files, class_names=["a"], decoding=VIEWER, local_cache_dir=None)


def test_too_many_end_the_run_with_number_and_flag_and_files(many):
    log = SkipLog(many, workdir=None, max_fraction=0.3)
    log.record(np.arange(12))
    with pytest.raises(InputError) as raised:
        log.record(np.array([12]))
    said = str(raised.value)
    assert said.startswith("13 of 40 images could not be read, expected at most 12 by")
    assert "--config.max_skipped_fraction=0.3;" in said
    assert many.describe(0) in said


def test_fewer_than_ten_never_end_a_run(many):
    log = SkipLog(many, workdir=None, max_fraction=0.0)
    log.record(np.arange(9))
    with pytest.raises(InputError, match=r"expected at most 9 by .*fraction=0;"):
        log.record(np.array([9]))


def test_what_an_earlier_run_could_not_read_does_not_count(many, tmp_path):
    with pytest.raises(InputError):
        SkipLog(many, workdir=tmp_path, max_fraction=0.1).record(np.arange(30))
    for index in range(30):
        Image.new("RGB", (8, 8)).save(many.describe(index))
    log = SkipLog(many, workdir=tmp_path, max_fraction=0.1)
    log.record(np.arange(25, 35))  # five of them are still none
    log.record(np.arange(35, 39))
    with pytest.raises(InputError, match="10 of 40"):
        log.record(np.array([39]))


def test_what_could_be_read_when_asked_again_does_not_count(source, tmp_path):
    good = [index for index in range(10) if index not in (2, 5, 7)]
    log = SkipLog(source, workdir=tmp_path, max_fraction=0.0)
    log.record(np.array(good * 3))
    lines = (tmp_path / "skipped.txt").read_text().splitlines()
    assert len(lines) == 7 and all("could be read later on" in line for line in lines)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\n\x00", b"a line without end"])
def test_any_list_of_an_earlier_run_is_read(source, tmp_path, content):
    (tmp_path / "skipped.txt").write_bytes(content)
    SkipLog(source, workdir=tmp_path, max_fraction=1.0).record(np.array([2]))
    assert source.describe(2).encode() in (tmp_path / "skipped.txt").read_bytes()


def test_a_list_that_is_a_folder_is_named(source, tmp_path):
    (tmp_path / "skipped.txt").mkdir()
    with pytest.raises(InputError, match=r"skipped\.txt: .*Is a directory.* remove it"):
        SkipLog(source, workdir=tmp_path, max_fraction=1.0)


def test_a_list_that_cannot_be_written_follows_when_it_can(
    source, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(growing_file, "RETRY_S", 0.01)
    gone = tmp_path / "gone"
    skips = SkipLog(source, workdir=gone, max_fraction=0.5)
    skips.record(np.array([2, 5, 7]))
    lines = capsys.readouterr().out.splitlines()
    (warning,) = [line for line in lines if line.startswith("WARNING")]
    assert "gone/skipped.txt cannot be written: No such file" in warning
    assert "KiB free); 1 entries wait in memory" in warning
    skipped = [line[8:] for line in lines if line.startswith("skipped ")]
    assert len(skipped) == 3
    # The next pass over the photos of this run knows them.
    SkipLog(source, workdir=gone, max_fraction=0.5).record(np.array([2]))
    gone.mkdir()
    close_lists()
    assert (gone / "skipped.txt").read_text().splitlines() == skipped


def test_nothing_is_written_without_a_workdir(source, tmp_path):
    SkipLog(source, workdir=None, max_fraction=1.0).record(np.array([2]))
    assert not (tmp_path / "skipped.txt").exists()
