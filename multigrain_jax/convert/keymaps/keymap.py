"""What is stated of a backbone's weight files."""

from collections.abc import Iterable
from typing import NamedTuple

# Pairs of module names, torch's and the one here; {…} stands for the same text in both.
Modules = tuple[tuple[str, str], ...]


class KeyMap(NamedTuple):
    """How weight files name a backbone's modules, and by what they are recognised.

    Attributes:
        modules: torch's module names with those here.
        prefix: what the original puts before the trunk's names.
        zoo_classifier: how model zoos call the classifier.
        has: keys, without the prefix, that every file of the backbone has;
        lacks: and those that it has not, which tell it from the larger of its family.
        aliases: modules that are the classifier once more in the original's files.
        zoo_background: whether the first of 1001 classes in zoos' files is none
            ("background").
    """

    modules: Modules
    prefix: str
    zoo_classifier: str
    has: tuple[str, ...]
    lacks: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    zoo_background: bool = False

    def recognises(self, keys: Iterable[str]) -> bool:
        """Whether a file with these keys, of whatever origin, is the backbone's."""
        bare = {key.removeprefix(self.prefix) for key in keys}
        return bare.issuperset(self.has) and bare.isdisjoint(self.lacks)
