"""Damage to a folder of descriptors: never silent, and made good by the next run."""

import json
import random
import shutil

import pytest
from helpers.descriptor_folders import all_found, contents, embed, stamps, status

from multigrain_jax.descriptors.folder import OK, read_head
from multigrain_jax.descriptors.index import DescriptorIndex
from multigrain_jax.descriptors.repair import find_sound
from multigrain_jax.errors import InputError

IMAGES = stamps(40)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Ten shards, among whose lines some are outdated and some without descriptor."""
    folder = tmp_path_factory.mktemp("whole")
    embed(folder, [IMAGES[0]._replace(mtime_ns=1), *IMAGES[1:21]])
    embed(folder, IMAGES)
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    copy = tmp_path / "descriptors"
    shutil.copytree(whole, copy)
    return copy


def flip(path, rng):
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def zero(path, rng):
    data = bytearray(path.read_bytes())
    start = rng.randrange(len(data))
    end = start + rng.randint(1, 64)
    data[start:end] = bytes(len(data[start:end]))
    path.write_bytes(data)


def cut(path, rng):
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(len(data))])


def delete(path, rng):
    path.unlink()


def swap(path, rng):
    other = rng.choice([p for p in sorted(path.parent.iterdir()) if p != path])
    data = path.read_bytes()
    path.write_bytes(other.read_bytes())
    other.write_bytes(data)


def edit(path, rng):
    """A byte more, a byte less, or another one of the same kind."""
    data = bytearray(path.read_bytes())
    place = rng.randrange(len(data))
    kind = rng.randrange(3)
    if kind == 0:
        data.insert(place, rng.choice(b'0123456789,"\n'))
    elif kind == 1:
        del data[place]
    else:
        digits = [n for n, byte in enumerate(data) if chr(byte).isdigit()]
        if digits:
            data[rng.choice(digits)] = rng.choice(b"0123456789")
    path.write_bytes(data)


def overwrite(path, rng):
    others = [each for each in sorted(path.parent.iterdir()) if each != path]
    shutil.copy(rng.choice(others), path)


DAMAGES = (flip, zero, cut, delete, swap, edit, overwrite)


@pytest.mark.parametrize("seed", range(8))
def test_no_random_damage_is_silent(whole, tmp_path, seed, capsys):
    """25 damages each: readers refuse in one line or find what they found before."""
    rng = random.Random(seed)
    expected = all_found(whole)
    noticed = 0
    for number in range(25):
        folder = tmp_path / str(number)
        shutil.copytree(whole, folder)
        name = rng.choice(sorted(contents(folder)))
        while contents(folder) == contents(whole):
            rng.choice(DAMAGES)(folder / name, rng)
        try:
            found = all_found(folder)
        except InputError as error:
            noticed += 1
            assert "\n" not in str(error) and str(folder) in str(error)
        else:
            assert found == expected
        capsys.readouterr()
        try:
            embed(folder, IMAGES)
        except InputError as error:
            # Without what made the descriptors nothing of them can be kept.
            assert "descriptors.json" in str(error) or "empty folder" in str(error)
            (folder / "descriptors.json").unlink(missing_ok=True)
            embed(folder, IMAGES)
        said = capsys.readouterr().out
        assert all_found(folder) == expected, (name, number)
        assert embed(folder, IMAGES) == []
        if name.startswith("shard-") and (folder / name).exists() is False:
            assert "made anew" in said
    assert noticed >= 15


@pytest.mark.parametrize("damage", [flip, cut, delete, swap, zero])
@pytest.mark.parametrize("name", ["shard-00001.npy", "index.csv"])
def test_what_is_made_anew_is_said_and_made(whole, folder, capsys, damage, name):
    rng = random.Random(3)
    damage(folder / name, rng)
    added = embed(folder, IMAGES)
    said = capsys.readouterr().out
    assert f"WARNING: {folder}: {name}: " in said
    assert "made anew" in said
    assert len(added) > 0
    assert all_found(folder) == all_found(whole)
    if name.startswith("shard") and damage is not swap:
        lost = read_head(whole).shards[1].rows
        assert f"the descriptors of {lost} photos are made anew: " in said
        assert len([image for image in added if status(image) == OK]) == lost


def test_a_cut_index_costs_the_lines_behind_the_cut_alone(whole, folder):
    data = (folder / "index.csv").read_bytes()
    (folder / "index.csv").write_bytes(data[:-3])
    added = embed(folder, IMAGES)
    assert 0 < len(added) <= read_head(whole).blocks[-1].rows
    assert all_found(folder) == all_found(whole)


def test_readers_name_the_file_and_the_remedy(folder):
    flip(folder / "shard-00001.npy", random.Random(0))
    index = DescriptorIndex.open(folder)  # sizes alone
    with pytest.raises(InputError, match=r"shard-00001\.npy: .* run `embed` there"):
        index.read(0, len(index))
    with pytest.raises(InputError, match=r"shard-00001\.npy: .* run `embed` there"):
        index.verify()
    (folder / "shard-00002.npy").unlink()
    with pytest.raises(InputError, match=r"shard-00002\.npy: No such file"):
        DescriptorIndex.open(folder)


def test_sizes_alone_are_checked_where_that_is_wanted(folder):
    flip(folder / "shard-00001.npy", random.Random(0))
    (folder / "shard-00002.npy").unlink()
    head = read_head(folder)
    (line,) = find_sound(folder, head, check_digests=False).damage
    assert "shard-00002" in line
    assert len(find_sound(folder, head, check_digests=True).damage) == 2


def test_a_manifest_that_is_gone_costs_everything_and_says_so(folder, capsys):
    (folder / "descriptors.json").unlink()
    assert len(embed(folder, IMAGES)) == len(IMAGES)
    assert "descriptors.json is missing" in capsys.readouterr().out


def as_version_1(folder):
    """The same folder as the version before would have it."""
    path = folder / "descriptors.json"
    values = json.loads(path.read_text())
    for key in ("shards", "blocks", "blocks_before", "roots", "digest"):
        del values[key]
    path.write_text(json.dumps({**values, "format_version": 1}))


@pytest.mark.parametrize("damage", [cut, delete, swap])
def test_what_can_be_seen_of_damage_to_version_1_is_made_good(folder, capsys, damage):
    expected = {path: d for path, d in all_found(folder).items() if "\\" not in path}
    as_version_1(folder)
    damage(folder / "shard-00001.npy", random.Random(1))
    images = [image for image in IMAGES if "\\" not in image.path]
    embed(folder, images)
    if damage is not swap:
        assert "shard-00001.npy" in capsys.readouterr().out
    assert read_head(folder).version == 2
    if damage is not swap:
        assert all_found(folder) == expected


def test_rows_of_version_1_that_two_processes_have_mixed_are_refused(folder):
    as_version_1(folder)
    index = folder / "index.csv"
    lines = index.read_bytes().split(b"\r\n")
    plain = [n for n, line in enumerate(lines) if line.endswith(b",ok") and n > 3]
    a, b = plain[0], plain[1]
    lines[a], lines[b] = lines[b], lines[a]
    index.write_bytes(b"\r\n".join(lines))
    with pytest.raises(InputError, match=r"two processes have written"):
        DescriptorIndex.open(folder)
    # Each has written over shards of the other: none of them can be trusted.
    assert len(embed(folder, IMAGES)) >= read_head(folder).num_rows // 3
    assert all_found(folder).keys() >= {i.path for i in IMAGES if status(i) == OK}
