"""What lies in buckets, listed once for each task.

A bucket has no folders: what lies below an address is listed once, by pages of a
thousand objects, and looked up from then on. No list outlives its task (`forget`): in a
bucket nothing tells whether a folder has changed, and photos that came since are not to
be lost. Reading processes get what they need with their source, and list nothing.
"""

import bisect
import errno
import hashlib
import threading
from array import array
from collections.abc import Iterator
from typing import NamedTuple

from multigrain_jax import buckets
from multigrain_jax.errors import InputError

# From so many objects on, a list takes long enough for a line.
TOLD_FROM = 10_000


class Stamp(NamedTuple):
    """Which writing of an object there is.

    Attributes:
        size: in bytes.
        version: another number for each writing.
    """

    size: int
    version: int


class Folder:
    """What is directly in a folder of a bucket.

    Attributes:
        folders: names, sorted.
        names: of objects, sorted.
        sizes: of the objects.
        versions: of the objects, as of `Stamp`.
    """

    def __init__(self) -> None:
        self.folders: list[str] = []
        self.names: list[str] = []
        self.sizes, self.versions = array("q"), array("q")

    def find(self, name: str) -> Stamp | None:
        """The object of this name; None if there is none."""
        place = bisect.bisect_left(self.names, name)
        if place == len(self.names) or self.names[place] != name:
            return None
        return Stamp(self.sizes[place], self.versions[place])


class Tree:
    """All objects below an address.

    Attributes:
        folders: by their names below the address; "" is the address itself.
        num_strange: objects that no folder can hold: with empty names, `.` or `..`
            among those of their folders.
    """

    def __init__(self, url: str):
        """List them.

        Raises:
            InputError: there is no such bucket, or it may not be listed.
            OSError: the storage does not answer.
        """
        self.folders = {"": Folder()}
        self.num_strange = 0
        skip = len(url) + 1
        count = 0
        try:
            for count, found in enumerate(buckets.list_objects(url), start=1):
                self._add(found.path[skip:], stamp_of(found))
                if count == TOLD_FROM:
                    print(f"listing {url} …", flush=True)
        except PermissionError as error:
            raise InputError(
                f"{url}: listing it failed: {error.strerror or error}"
            ) from error
        for folder in self.folders.values():
            _sort(folder)
        if count >= TOLD_FROM:
            print(f"{url}: {count} objects", flush=True)

    def _add(self, name: str, stamp: Stamp) -> None:
        parts = name.split("/")
        if not name.isprintable() and ("\n" in name or "\r" in name):
            self.num_strange += 1
            return
        if {"", ".", ".."}.intersection(parts):
            self.num_strange += 1
            return
        folder = self._folder("/".join(parts[:-1]))
        folder.names.append(parts[-1])
        folder.sizes.append(stamp.size)
        folder.versions.append(stamp.version)

    def _folder(self, name: str) -> Folder:
        found = self.folders.get(name)
        if found is None:
            found = self.folders[name] = Folder()
            above, _, own = name.rpartition("/")
            self._folder(above).folders.append(own)
        return found

    def files(self) -> Iterator[str]:
        """The names of all objects, folder by folder."""
        for folder, inside in sorted(self.folders.items()):
            prefix = f"{folder}/" if folder else ""
            yield from (prefix + name for name in inside.names)

    def has(self, name: str) -> bool:
        """Whether anything lies below a name; below the address itself for ""."""
        inside = self.folders.get(name)
        return inside is not None and bool(inside.names or inside.folders)


def _sort(folder: Folder) -> None:
    folder.folders.sort()
    # The storage sorts by bytes of the whole name, which is nearly this order.
    order = sorted(range(len(folder.names)), key=folder.names.__getitem__)
    if order != list(range(len(order))):
        folder.names = [folder.names[place] for place in order]
        folder.sizes = array("q", (folder.sizes[place] for place in order))
        folder.versions = array("q", (folder.versions[place] for place in order))


def stamp_of(status: buckets.Status) -> Stamp:
    """Size and version of an object whose status is known."""
    generation = status.generation
    if generation.isdigit() and len(generation) < 19:
        return Stamp(status.size, int(generation))
    digest = hashlib.sha256(generation.encode()).digest()
    return Stamp(status.size, int.from_bytes(digest[:8]) >> 1)


# What was listed, by address; one after the other.
_trees: dict[str, Tree] = {}
_listing = threading.Lock()


def forget() -> None:
    """Forget what was listed: a new task looks anew."""
    _trees.clear()


def _known(url: str) -> tuple[Tree, str] | None:
    """A tree that an address lies in, and its name there; None: it was not listed."""
    above = url
    while "://" in above and not above.endswith("//"):
        if above in _trees:
            return _trees[above], url[len(above) + 1 :]
        above = above.rpartition("/")[0]
    return None


def listed(url: str) -> tuple[Tree, str]:
    """The tree that an address lies in, listed if need be, and its name there.

    Errors as of `Tree`.
    """
    with _listing:
        found = _known(url)
        if found is None:
            _trees[url] = Tree(url)
            found = _trees[url], ""
        return found


def listed_stamp(url: str) -> Stamp | None:
    """Size and version of an object as it was listed; None where it was not."""
    folder, _, own = url.rpartition("/")
    found = _known(folder)
    if found is None:
        return None
    tree, name = found
    return tree.folders[name].find(own) if name in tree.folders else None


def stamp_url(url: str) -> Stamp:
    """Size and version of an object: as it was listed, or by asking.

    Raises:
        FileNotFoundError: it is not there.
        OSError: as of `buckets.stat`.
    """
    if _known(url.rpartition("/")[0]) is None:
        return stamp_of(buckets.stat(url))
    stamp = listed_stamp(url)
    if stamp is None:
        raise FileNotFoundError(errno.ENOENT, "no such object", url)
    return stamp
