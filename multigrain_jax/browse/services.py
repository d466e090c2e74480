"""What the routes of the server share."""

from dataclasses import dataclass

import numpy as np

from multigrain_jax.browse.collection import Collection
from multigrain_jax.browse.decoders import Decoders, NetworkJob, PictureJob
from multigrain_jax.browse.embedder import Embedder
from multigrain_jax.browse.gate import Gate
from multigrain_jax.browse.meters import Meters
from multigrain_jax.browse.neighbours import NeighbourSearch
from multigrain_jax.browse.photo_files import PhotoFiles
from multigrain_jax.browse.thumbnails import Thumbnails
from multigrain_jax.data.decoding import Decoding


@dataclass(frozen=True)
class Services:
    """What the routes of the server share.

    Attributes:
        collection: the photos.
        files: reads them.
        thumbnails: makes small ones.
        search: finds similar ones.
        embedder: embeds photos of others.
        decoders: decode them.
        gate: bounds how many are under way.
        meters: count.
        decoding: how photos become pixels.
        test_size: S, in pixels.
        test_mode: "square" or "rect".
        smallest_side: the backbone's.
        class_names: of the logits; empty where there are none.
        threshold: the similarity at which "the same photo" begins at first.
        threshold_origin: where that comes from, in words.
    """

    collection: Collection
    files: PhotoFiles
    thumbnails: Thumbnails
    search: NeighbourSearch
    embedder: Embedder
    decoders: Decoders
    gate: Gate
    meters: Meters
    decoding: Decoding
    test_size: int
    test_mode: str
    smallest_side: int
    class_names: tuple[str, ...]
    threshold: float
    threshold_origin: str

    def network_job(self, data: bytes) -> NetworkJob:
        """What makes an encoded photo the network's input."""
        return NetworkJob(
            data, self.decoding, self.test_size, self.test_mode, self.smallest_side
        )

    def picture_job(self, data: bytes, *, side: int) -> PictureJob:
        """What makes an encoded photo a JPEG file."""
        return PictureJob(data, self.decoding, side)

    def likely_classes(
        self, logits: np.ndarray | None, *, count: int
    ) -> list[tuple[str, float]]:
        """The names of the likeliest classes, each with its probability.

        Args:
            logits: [classes]; None: no classes.
            count: how many.
        """
        if logits is None or len(self.class_names) != len(logits):
            return []
        odds = np.exp(logits - logits.max())
        probabilities = odds / odds.sum()
        best = np.argsort(-probabilities, kind="stable")[:count]
        return [(self.class_names[n], float(probabilities[n])) for n in best]
