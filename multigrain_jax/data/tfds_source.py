"""TensorFlow Datasets without TensorFlow: prepared data sets by random access."""

from pathlib import Path
from typing import Any

import numpy as np

from multigrain_jax.errors import InputError


class TfdsSource:
    """A split of a data set that lies prepared as ArrayRecord."""

    apply_exif_orientation = False

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
                    f"{', '.join(info.features)}"
                )
        self.class_names = list(info.features[label_key].names)
        self.labels = np.array(
            [records[i][label_key] for i in range(len(records))], np.int32
        )

    def _open(self) -> tuple[Any, Any]:
        import tensorflow_datasets as tfds

        try:
            builder = tfds.builder_from_directory(self._folder)
            records = builder.as_data_source(
                self._split, decoders={self._image_key: tfds.decode.SkipDecoding()}
            )
        except Exception as error:
            raise InputError(
                f"{self._folder}, split {self._split!r}: a data set prepared by TFDS "
                "with file_format='array_record' was expected, and opening it failed: "
                f"{error}"
            ) from error
        return builder.info, records

    def __getstate__(self) -> dict[str, Any]:
        # Open files do not travel to reading processes: each opens its own.
        return {**self.__dict__, "_records": None}

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> bytes:
        """The encoded bytes of one image."""
        if self._records is None:
            _, self._records = self._open()
        return self._records[index][self._image_key]

    def describe(self, index: int) -> str:
        """The folder, the split and the index."""
        return f"{self._folder} {self._split} [{index}]"
