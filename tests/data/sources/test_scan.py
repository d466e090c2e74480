"""What is taken of a folder, and what is passed over and counted."""

import os

import pytest
from helpers.photos import plain_photo, write_plain_photos

from multigrain_jax.data.sources.folder import index_folder, read_list_file
from multigrain_jax.data.sources.scan import (
    DEFAULT_EXCLUDE,
    SUFFIXES_NAMED,
    Sieve,
    scan,
)
from multigrain_jax.errors import InputError


def sieve(exclude=DEFAULT_EXCLUDE, unreadable="refuse"):
    return Sieve(exclude, unreadable)


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_every_suffix_of_an_image_is_taken_in_any_case(tmp_path):
    names = [
        *("1.jpg", "2.JPEG", "3.jpe", "4.jfif", "5.mpo", "6.png", "7.webp", "8.gif"),
        *("9.bmp", "a.TIF", "b.tiff", "c.avif", "d.jp2", "e.j2k"),
    ]
    touch(tmp_path, *names)
    found = scan(tmp_path, sieve())
    assert found.files == sorted(names)
    assert found.suffixes == found.excluded == {}


def test_what_could_keep_a_reader_waiting_is_passed_over_and_counted(tmp_path):
    """Links are followed: what they lead to is only known when it is asked."""
    touch(tmp_path, "a/1.jpg")
    os.mkfifo(tmp_path / "a" / "2.jpg")
    os.mkfifo(tmp_path / "a" / "3")
    (tmp_path / "a" / "4.jpg").symlink_to("1.jpg")
    found = scan(tmp_path, sieve())
    assert found.files == ["a/1.jpg", "a/4.jpg"]
    passing = sieve()
    passing.remember(tmp_path, found)
    (line,) = passing.remarks
    assert "passed over 2 pipes, sockets or devices: to read one could wait" in line


def test_what_is_passed_over_is_counted_by_suffix_with_a_remedy(tmp_path):
    touch(tmp_path, *(f"a/{n}.HEIC2" for n in range(2)), "a/1.mov", "a/x", "a/1.cr3")
    touch(tmp_path, "a/notes.txt", "b/notes.txt", "b/1.jpg", "b/1.svg")
    found = scan(tmp_path, sieve())
    assert found.suffixes == {
        ".heic2": 2,
        ".mov": 1,
        ".cr3": 1,
        ".svg": 1,
        ".txt": 2,
        "without a suffix": 1,
    }
    remembered = sieve()
    remembered.remember(tmp_path, found)
    text = "\n".join(remembered.remarks)
    for line in (
        "2 .heic2: no suffix of an image",
        "1 .mov: videos",
        "1 .cr3: raw photos: export",
        "1 .svg: save them as PNG",
        "1 without a suffix: photos among them need one",
        "the folder 'a': no image in it",
    ):
        assert f"{tmp_path}: passed over {line}" in text
    assert len(remembered.remarks) == 7


def test_heic_photos_come_with_their_remedy(tmp_path, monkeypatch):
    from multigrain_jax.data import image_file

    monkeypatch.setattr(image_file, "_has_reader", lambda name: False)
    touch(tmp_path, *(f"{n}.heic" for n in range(412)), "1.jpg")
    remembered = sieve()
    index_folder(tmp_path, split=None, sieve=remembered, instances=None)
    assert remembered.remarks == [
        f"{tmp_path}: passed over 412 .heic: pip install -e '.[heif]'"
    ]


def test_many_odd_suffixes_become_one_line(tmp_path):
    touch(tmp_path, "1.jpg", *(f"x.{n:05d}" for n in range(SUFFIXES_NAMED + 3)))
    remembered = sieve()
    remembered.remember(tmp_path, scan(tmp_path, remembered))
    assert len(remembered.remarks) == SUFFIXES_NAMED + 1
    assert "3 of 3 other suffixes" in remembered.remarks[-1]


EXCLUDED = {
    "a/.hidden.jpg": ".*",
    "a/._1.jpg": ".*",
    ".trash-1000/1.jpg": ".*",
    "a/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg": "@eaDir",
    "__MACOSX/a/1.jpg": "__MACOSX",
    "$Recycle.Bin/1.jpg": "$RECYCLE.BIN",
    "lost+found/1.jpg": "lost+found",
    "a/thumbs.db": "Thumbs.db",
}


@pytest.mark.parametrize("name", EXCLUDED)
def test_what_systems_leave_behind_is_kept_out_and_counted(tmp_path, name):
    touch(tmp_path, "a/1.jpg", name)
    found = scan(tmp_path, sieve())
    assert found.files == ["a/1.jpg"]
    assert found.excluded == {EXCLUDED[name]: 1}
    remembered = sieve()
    remembered.remember(tmp_path, found)
    (line,) = remembered.remarks
    assert line.endswith(f"passed over 1 {EXCLUDED[name]} (data.exclude)")


def test_patterns_are_the_users_and_look_at_names_and_paths(tmp_path):
    touch(tmp_path, "a/1.jpg", "a/.b.jpg", "private/2.jpg", "b/c/3.jpg", "b/3.jpg")
    assert scan(tmp_path, sieve(())).files == [
        *("a/.b.jpg", "a/1.jpg", "b/3.jpg", "b/c/3.jpg", "private/2.jpg"),
    ]
    chosen = sieve(("PRIVATE", "b/c", "?.jpg"))
    assert scan(tmp_path, chosen).files == ["a/.b.jpg"]


def test_the_list_that_is_kept_knows_what_was_passed_over(
    tmp_path, monkeypatch, cache_home
):
    from multigrain_jax.data.sources import folder

    monkeypatch.setattr(folder, "KEPT_FROM", 1)
    touch(tmp_path, "a/1.jpg", "a/1.mov", "b/x.txt", "@eaDir/1.jpg")
    texts = []
    for _ in range(2):
        remembered = sieve()
        index_folder(tmp_path, split=None, sieve=remembered, instances=None)
        texts.append(remembered.remarks)
        monkeypatch.setattr(folder, "scan", None)  # the second time it is not needed
    assert texts[0] == texts[1] and len(texts[0]) == 4
    # Other patterns are another list.
    with pytest.raises(TypeError):
        index_folder(tmp_path, split=None, sieve=sieve(("a",)), instances=None)


@pytest.fixture
def locked(tmp_path, monkeypatch):
    """A folder with one that cannot be listed in it, whoever asks."""
    touch(tmp_path, "a/1.jpg", "locked/2.jpg")
    scandir = os.scandir

    def refuse(path):
        if os.path.basename(path) == "locked":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    return tmp_path


def test_a_folder_that_cannot_be_listed_is_passed_over_on_request(
    locked, monkeypatch, cache_home
):
    from multigrain_jax.data.sources import folder

    monkeypatch.setattr(folder, "KEPT_FROM", 1)
    remembered = sieve(unreadable="skip")
    files, _ = index_folder(locked, split=None, sieve=remembered, instances=None)
    assert [file.path for file in files] == [f"{locked}/a/1.jpg"]
    (line,) = remembered.remarks
    assert "the folder 'locked', which cannot be listed: Permission denied" in line
    # Such a list is not kept: the folder may be readable the next time.
    assert not (cache_home / "multigrain_jax").exists()
    with pytest.raises(InputError, match=r"locked: listing .* data\.exclude"):
        index_folder(locked, split=None, sieve=sieve(), instances=None)


def test_a_folder_without_images_says_what_it_has(tmp_path):
    touch(tmp_path, "a/1.mov")
    with pytest.raises(InputError, match=r"(?s)no images.*passed over 1 \.mov: videos"):
        index_folder(tmp_path, split=None, sieve=sieve(), instances=None)


LINES = {
    "mark": b"\xef\xbb\xbfa/1.jpg\nb/2.jpg\n",
    "returns": b"a/1.jpg\r\nb/2.jpg\r\n",
    "comments": b"# a list\na/1.jpg\n\n  # indented\nb/2.jpg\n",
    "labels": b"\xef\xbb\xbfa/1.jpg\ta\r\nb/2.jpg \t b\r\n",
}


@pytest.mark.parametrize("name", LINES)
def test_lists_of_any_editor_are_read(tmp_path, name):
    (tmp_path / "list.txt").write_bytes(LINES[name])
    path = tmp_path / "list.txt"
    files, classes = read_list_file(
        path, root=tmp_path / "r", sieve=sieve(), instances=None
    )
    assert [file.path for file in files] == [
        str(tmp_path / "r" / "a" / "1.jpg"),
        str(tmp_path / "r" / "b" / "2.jpg"),
    ]
    assert classes == ["a", "b"]


def test_a_list_may_name_absolute_paths_below_the_root(tmp_path):
    write_plain_photos(tmp_path, ["a/1.jpg"])
    path = tmp_path / "list.txt"
    path.write_text(f"{tmp_path}/a/1.jpg\n")
    files, _ = read_list_file(path, root=tmp_path, sieve=sieve(), instances=None)
    assert [file.path for file in files] == [str(tmp_path / "a" / "1.jpg")]
    path.write_text("/elsewhere/1.jpg\n")
    with pytest.raises(InputError, match="is absolute, and leads outside"):
        read_list_file(path, root=tmp_path, sieve=sieve(), instances=None)


def test_spaces_are_part_of_a_path_and_no_separator(tmp_path):
    (tmp_path / "my cat.jpg").write_bytes(plain_photo())
    (tmp_path / "1.jpg").write_bytes(plain_photo())
    path = tmp_path / "list.txt"
    path.write_text("my cat.jpg\n")
    assert (
        len(read_list_file(path, root=tmp_path, sieve=sieve(), instances=None)[0]) == 1
    )
    path.write_text("1.jpg cat\n")
    with pytest.raises(InputError, match="expected a tab before the class 'cat'"):
        read_list_file(path, root=tmp_path, sieve=sieve(), instances=None)


def test_apple_doubles_of_a_list_are_passed_over(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("a/1.jpg\na/._1.jpg\nb/._2.jpg\nb/.3.jpg\n")
    remembered = sieve()
    files, _ = read_list_file(path, root=tmp_path, sieve=remembered, instances=None)
    assert [os.path.basename(file.path) for file in files] == ["1.jpg", ".3.jpg"]
    (line,) = remembered.remarks
    assert line.startswith(f"{path}: passed over 2 ._*")
