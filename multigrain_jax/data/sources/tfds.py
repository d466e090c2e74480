"""TensorFlow Datasets without TensorFlow: prepared data sets by random access."""

from pathlib import Path
from typing import Any

import numpy as np

from multigrain_jax.data.cache import kept_labels
from multigrain_jax.data.decoding import PLAIN
from multigrain_jax.data.sources.source import ImageSource
from multigrain_jax.errors import InputError

RECORDS_AT_ONCE = 256


class TfdsSource(ImageSource):
    """A split of a data set that lies prepared as ArrayRecord."""

    decoding = PLAIN

    def __init__(
        self,
        folder: str | Path,
        split: str,
        *,
        image_key: str = "image",
        label_key: str = "label",
    ):
        """Open a prepared data set.

        Args:
            folder: the prepared version's folder, `…/name/1.0.0` (the one with
                `dataset_info.json`).
            split: a split's name, or a slice of one such as "train[:10%]".
            image_key: the feature that holds the image.
            label_key: the feature that holds the label, a ClassLabel.

        Raises:
            InputError: no prepared data set there, no such split or feature.
        """
        self._folder, self._split = str(folder), split
        self._image_key, self._label_key = image_key, label_key
        info, records = self._open()
        self._records: Any = records
        for key in (image_key, label_key):
            if key not in info.features:
                raise InputError(
                    f"{folder}: feature {key!r} was expected, found "
                    f"{', '.join(info.features)}; choose a data set for "
                    "classification, or prepare one with these names"
                )
        names = getattr(info.features[label_key], "names", None)
        if not names:
            raise InputError(
                f"{folder}: feature {label_key!r} was expected to be a ClassLabel with "
                f"names, found {info.features[label_key]}; prepare the data set with "
                "names"
            )
        self.class_names = list(names)
        key = (self._folder, split, label_key, info.as_json)
        # They stand in the same records as the images: reading them reads everything.
        self.labels = kept_labels(key, len(records), self._read_labels)

    def _open(self) -> tuple[Any, Any]:
        import tensorflow_datasets as tfds

        try:
            builder: Any = tfds.builder_from_directory(self._folder)
            records = builder.as_data_source(
                self._split, decoders={self._image_key: tfds.decode.SkipDecoding()}
            )
        except Exception as error:
            raise InputError(
                f"{self._folder}, split {self._split!r}: a data set prepared by TFDS "
                "with file_format='array_record' was expected, and opening it failed: "
                f"{error}; give the version's folder (with dataset_info.json) as "
                "data.root"
            ) from error
        return builder.info, records

    def _read_labels(self) -> np.ndarray:
        count = len(self._records)
        labels = np.empty(count, np.int32)
        for start in range(0, count, RECORDS_AT_ONCE):
            chunk = range(start, min(start + RECORDS_AT_ONCE, count))
            try:
                records = self._records.__getitems__(list(chunk))
            except Exception as error:
                raise InputError(
                    f"{self._folder} {self._split}: records {chunk[0]} to {chunk[-1]} "
                    f"cannot be read ({error}); prepare the data set anew"
                ) from error
            labels[chunk.start : chunk.stop] = [r[self._label_key] for r in records]
        return labels

    def __getstate__(self) -> dict[str, Any]:
        # Open files do not travel to reading processes: each opens its own.
        return {**self.__dict__, "_records": None}

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> bytes:
        """The encoded bytes of one image; OSError if its record is damaged."""
        if self._records is None:
            _, self._records = self._open()
        try:
            return self._records[index][self._image_key]
        except Exception as error:
            # ArrayRecord raises several kinds for records whose checksum is wrong.
            raise OSError(f"damaged record: {error}") from error

    def describe(self, index: int) -> str:
        """The folder, the split and the index."""
        return f"{self._folder} {self._split} [{index}]"
