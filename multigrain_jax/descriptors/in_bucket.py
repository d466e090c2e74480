"""Folders of descriptors that lie in a bucket, as copies on this machine."""

import os
import re
from pathlib import Path

from multigrain_jax import buckets
from multigrain_jax.bucket_copies import Wanted, copy_of
from multigrain_jax.descriptors.folder import (
    DESCRIPTOR_FOLDER,
    HEAD_FILE,
    INDEX_FILE,
    shard_path,
)
from multigrain_jax.descriptors.index_file import open_index
from multigrain_jax.descriptors.shards import size_problem
from multigrain_jax.errors import InputError
from multigrain_jax.workdir import CONFIG_FILE

_HEAD = re.compile(rf"(([^/]+/)?{DESCRIPTOR_FOLDER}/)?{re.escape(HEAD_FILE)}")


def on_this_machine(path: str | Path) -> Path:
    """A path as it is; of a bucket a copy of the descriptors there.

    With them comes the config.json beside them, as far as there is one.

    Args:
        path: a folder of descriptors, or a workdir of `embed`, which may hold workdirs
            of other settings: their heads are copied, and all of the newest.

    Raises:
        InputError: it is written to again and again while it is read.
        OSError: the storage does not answer.
    """
    if not buckets.is_bucket(path):  # of this machine, or a copy already
        return path if isinstance(path, Path) else Path(path)
    url = buckets.normalize(path)
    above, _, name = url.rpartition("/")
    if above.endswith("/") or not buckets.exists(f"{url}/{HEAD_FILE}"):
        return copy_of(url, _choose_workdir, is_whole=_is_whole)
    config = buckets.join(above, CONFIG_FILE)

    def choose(found: dict[str, buckets.Status]) -> Wanted:
        wanted = {f"{name}/{n}": s for n, s in found.items() if _is_part(n)}
        if name == DESCRIPTOR_FOLDER and buckets.exists(config):
            wanted[CONFIG_FILE] = buckets.stat(config)
        return wanted, []

    whole = copy_of(url, choose, is_whole=lambda copy: _is_whole(copy / name), at=above)
    return whole / name


def _choose_workdir(found: dict[str, buckets.Status]) -> Wanted:
    """Of a workdir, or a folder of descriptors at the top of a bucket."""
    heads = [name for name in found if _HEAD.fullmatch(name)]
    configs = {os.path.dirname(os.path.dirname(name)) for name in heads} | {""}
    names = {*heads, *(os.path.join(place, CONFIG_FILE) for place in configs)}
    if heads:
        newest = os.path.dirname(max(heads, key=lambda name: found[name].modified))
        prefix = f"{newest}/" if newest else ""
        below = (n for n in found if n.startswith(prefix))
        names |= {n for n in below if _is_part(n.removeprefix(prefix))}
    return {name: status for name, status in found.items() if name in names}, []


def _is_part(name: str) -> bool:
    """Whether a file directly in a folder of descriptors belongs to them."""
    is_shard = name.startswith("shard-") and "/" not in name
    return is_shard or name in (HEAD_FILE, INDEX_FILE, CONFIG_FILE)


def _is_whole(folder: Path) -> bool:
    """Whether head, index and shards are of one moment, in every copied folder."""
    others = folder.glob(f"*/{DESCRIPTOR_FOLDER}")
    for each in (folder, folder / DESCRIPTOR_FOLDER, *others):
        if (each / HEAD_FILE).exists() and (each / INDEX_FILE).exists():
            try:
                head, descriptor = open_index(each)
            except InputError:
                return False
            os.close(descriptor)
            for number, shard in enumerate(head.shards):
                known = shard.digest is not None
                if known and size_problem(shard_path(each, number), shard):
                    return False
    return True
