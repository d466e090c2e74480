"""What is stated of a backbone's weight files."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

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
        shape: the shape in torch of the last key of `has`, where others of the family
            have the same keys.
        aliases: modules that are the classifier once more in the original's files.
        zoo_background: whether the first of 1001 classes in zoos' files is none
            ("background").
        known_as: names of the backbone elsewhere.
        caveat: what other networks have the very same keys and shapes.
        zoo_notes: what is to be said of zoos' files.
    """

    modules: Modules
    prefix: str
    zoo_classifier: str
    has: tuple[str, ...]
    lacks: tuple[str, ...] = ()
    shape: tuple[int, ...] | None = None
    aliases: tuple[str, ...] = ()
    zoo_background: bool = False
    known_as: tuple[str, ...] = ()
    caveat: str = ""
    zoo_notes: tuple[str, ...] = ()

    def recognises(self, state_dict: Mapping[str, np.ndarray]) -> bool:
        """Whether these arrays by key, of whatever origin, are the backbone's."""
        bare = {key.removeprefix(self.prefix): key for key in state_dict}
        if not bare.keys() >= set(self.has) or bare.keys() & set(self.lacks):
            return False
        last = state_dict[bare[self.has[-1]]]
        return self.shape is None or np.shape(last) == self.shape
