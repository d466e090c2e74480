import os
import pickle
import shutil

import numpy as np
import pytest
from helpers.photos import plain_photo
from helpers.shards import samples, write_tar
from helpers.sources import described, open_photos

from multigrain_jax.data.reading import why_unreadable
from multigrain_jax.errors import InputError

PHOTOS = [plain_photo(20 * number) for number in range(4)]


def open_tars(root, split=None, **options):
    return open_photos(root, split, source="webdataset", **options)


def content(source):
    return [source.read(i) for i in range(len(source))]


def test_samples_are_photos_with_their_labels_in_the_order_of_the_shards(tmp_path):
    write_tar(tmp_path / "a-train-0001.tar", samples(PHOTOS[2:], [2, 0]))
    write_tar(tmp_path / "a-train-0000.tar", samples(PHOTOS[:2], [1, 0]))
    write_tar(tmp_path / "a-val-0000.tar", samples(PHOTOS[:1], [7]))
    source = open_tars(tmp_path, "train")
    assert content(source) == PHOTOS
    assert source.labels.tolist() == [1, 0, 2, 0]
    assert source.labels.dtype == np.int32
    # Numbers stay what they are, also of a class without a photo.
    assert source.class_names == ["0", "1", "2"]
    assert described(source, tmp_path) == [
        "a-train-0000.tar/0000.jpg",
        "a-train-0000.tar/0001.jpg",
        "a-train-0001.tar/0000.jpg",
        "a-train-0001.tar/0001.jpg",
    ]
    with source.open(2) as file:
        assert file.read(3) == PHOTOS[2][:3]
        assert file.seek(-2, os.SEEK_END) == len(PHOTOS[2]) - 2
        assert file.read() == PHOTOS[2][-2:]
    copy = pickle.loads(pickle.dumps(source))
    assert content(copy) == PHOTOS
    assert copy.describe(3) == source.describe(3)


def test_members_of_a_sample_may_lie_apart_and_of_any_kind(tmp_path):
    long = "x" * 120  # more than the name in a header holds
    photo = plain_photo(9, kind="PNG")
    write_tar(
        tmp_path / "a.tar",
        [
            ("./b/1.cls", b"\xef\xbb\xbfant\n"),
            ("./b/2.json", b'\xef\xbb\xbf{"label": "bee", "width": 8}'),
            (f"./b/{long}.txt", b"cow"),
            ("./b/.hidden", b""),
            ("./b/1.seg.png", b"a mask"),
            ("./b/2.webp", PHOTOS[0]),
            ("./b/1.JPEG", PHOTOS[1]),
            (f"./b/{long}.png", photo),
            ("./b/3.json", b'{"caption": "a cow", "url": "-"}'),
            ("./b/3.txt", b"a cow"),
            ("./b/3.jpg", PHOTOS[2]),
            ("./b/4.cls", b"ant"),
        ],
    )
    source = open_tars(tmp_path)
    assert content(source) == [PHOTOS[0], PHOTOS[1], photo, PHOTOS[2]]
    assert source.class_names == ["ant", "bee", "cow"]
    assert source.labels.tolist() == [1, 0, 2, -1]
    said = "\n".join(source.remarks)
    for line in (
        "1 links, hidden files, or names",
        "1 .seg.png",
        "1 .txt, captions",
        "1 labels without a photo, such as './b/4'",
        "1 of 4 photos have no label",
    ):
        assert line in said
    assert described(source, tmp_path)[0] == "a.tar/b/2.webp"


def test_a_cut_or_damaged_tar_is_named_with_its_last_member(tmp_path):
    good = write_tar(tmp_path / "good" / "a.tar", samples(PHOTOS, [0, 1, 2, 0]))
    block = 512
    photo_blocks = -(-len(PHOTOS[0]) // block)
    third = 2 * (photo_blocks + 3) * block

    def copied():
        folder = tmp_path / "bad"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return shutil.copy(good, folder / "a.tar")

    # In a photo, and in a header.
    for size in (third + block + 10, third + 100):
        os.truncate(copied(), size)
        with pytest.raises(InputError, match=r"bad/a\.tar: a tar was expected.*copy"):
            open_tars(tmp_path / "bad")
    # Between two members a tar may end; but it has no mark of the end.
    os.truncate(copied(), third)
    source = open_tars(tmp_path / "bad")
    assert len(source) == 2
    assert source.remarks[0].endswith(
        "no mark of a tar's end behind '0001.cls': it may have been cut off there"
    )
    # A header that is overwritten, of which Python's reader says nothing.
    path = copied()
    with open(path, "r+b") as file:
        file.seek(third)
        file.write(b"?" * block)
    with pytest.raises(InputError, match=r"no header of a member behind '0001\.cls'"):
        open_tars(tmp_path / "bad")
    path = copied()
    with open(path, "ab") as file:
        file.write(good.read_bytes())
    with pytest.raises(InputError, match=r"bytes behind its end"):
        open_tars(tmp_path / "bad")
    (tmp_path / "bad" / "a.tar").write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.tar: a tar was expected.*empty"):
        open_tars(tmp_path / "bad")


def test_a_bad_photo_is_one_unreadable_photo(tmp_path):
    write_tar(tmp_path / "a.tar", samples([PHOTOS[0], b"no photo", b""], [0, 1, 0]))
    source = open_tars(tmp_path)
    assert [why_unreadable(source, i) is None for i in range(3)] == [True, False, False]
    assert source.labels.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("1.jpg", b"a"), ("1.jpg", b"b")], r"a\.tar: found 1\.jpg twice"),
        ([("1.jpg", b"a"), ("1.cls", b"1"), ("1.cls", b"1")], r"found 1\.cls twice"),
        (samples(PHOTOS[:2], [1, "ant"]), "'1' of 0000.jpg and 'ant' of 0001.jpg"),
        (samples(PHOTOS[:1], [1_000_000]), r"a\.tar/0000\.jpg: the label '1000000'"),
        ([("1.jpg", b"a"), ("1.cls", b"\xff")], r"a\.tar/1\.jpg: its \.cls was"),
        ([("1.jpg", b"a"), ("1.json", b"{")], r"a\.tar/1\.jpg: its \.json cannot"),
        ([("1.jpg", b"a"), ("1.json", b'{"label": [1]}')], r"json has label = '\[1\]'"),
        ([("1.cls", b"1")], r"no photos in 1 \.tar files\n.*1 labels without a photo"),
    ],
)
def test_what_cannot_be_a_sample_is_refused_by_name(tmp_path, members, message):
    write_tar(tmp_path / "a.tar", members)
    with pytest.raises(InputError, match=message) as raised:
        open_tars(tmp_path)
    assert "a tar was expected" not in str(raised.value)


def test_a_compressed_tar_is_refused_by_its_name_and_by_its_content(tmp_path):
    import gzip

    path = write_tar(tmp_path / "a.tar", samples(PHOTOS[:1], [0]))
    data = gzip.compress(path.read_bytes())
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"a\.tar: .*compressed by gzip: unpack it"):
        open_tars(tmp_path)
    path.rename(tmp_path / "a.tar.gz")
    for root in (tmp_path, tmp_path / "a.tar.gz"):
        with pytest.raises(InputError, match=r"a\.tar\.gz: a compressed tar was found"):
            open_tars(root)
