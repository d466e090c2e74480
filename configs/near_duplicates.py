"""Photos of a collection that are nearly the same, in groups.

    python -m multigrain_jax.main --config configs/near_duplicates.py \
        --config.database=workdirs/embed --config.threshold=0.9

Results: groups.csv, pairs.csv and report.html, the largest groups first. Links to one
file count as one photo, and are listed in links.csv. Nothing is deleted.

Without a network and its descriptors, of a folder of photos: files that are the same to
the byte, and photos whose perceptual hashes are near (extra `duplicates`):

    python -m multigrain_jax.main --config configs/near_duplicates.py \
        --config.database=~/photos

What photos of a second collection are in the first one already:

    python -m multigrain_jax.main --config configs/near_duplicates.py \
        --config.database=workdirs/embed --config.reference=workdirs/embed_new

Photos for validation that are nearly the same as one for training, in leaks.csv too:

    python -m multigrain_jax.main --config configs/near_duplicates.py:leaks \
        --config.database=workdirs/embed
"""

import ml_collections
from ml_collections import config_dict


def get_config(pairs: str = "any") -> ml_collections.ConfigDict:
    """The configuration; every value can be set with --config.key=value."""
    config = ml_collections.ConfigDict()
    config.task = "near_duplicates"
    # The workdir of an `embed`, or a folder of photos.
    config.database = config_dict.placeholder(str)
    # Another collection of the same model: each pair then has one photo of either.
    config.reference = config_dict.placeholder(str)
    # Which photos may be a pair: "any"; of the "same_folder"; of folders that are not
    # the same ("other_folder"); one of train and one of val ("train_val", or "leaks").
    config.pairs = "train_val" if pairs == "leaks" else pairs
    config.data = ml_collections.ConfigDict()
    # Where the photos of the database are now, if they were moved since.
    config.data.root = config_dict.placeholder(str)
    # Of a folder of photos, names and paths that are passed over; then the largest one.
    config.data.exclude = (
        ".*",
        "@eaDir",
        "__MACOSX",
        "$RECYCLE.BIN",
        "lost+found",
        "Thumbs.db",
    )
    config.data.max_megapixels = 128.0  # as in base.py
    # Of "train_val", where the folder has no val: as it was in training.
    config.data.val_fraction = 0.15
    config.verify = False  # check all digests first; each is checked when it is read
    # Least similarity of a pair, the inner product of descriptors of unit length; 1 is
    # of the same pixels. What suits depends on the model. "auto": what its training
    # has measured (copy_threshold_at_p90 in the results.json), else, also of published
    # weights, 0.9, a guess.
    config.threshold = config_dict.FieldReference("auto", field_type=object)
    # Compare perceptual hashes too, which reads each photo once: "yes", "no", or
    # "auto": for a folder of photos, if the package imagehash is installed.
    config.hashes = "auto"
    # Photos whose hashes differ in at most so many of 128 bits are nearly the same.
    config.hash_distance = 24
    # "single": a group is what pairs connect, even through others. "complete": any two
    # photos of a group are a pair.
    config.linkage = "single"
    # Read files that are as large as another one of their group, to tell which of them
    # are the same to the byte.
    config.compare_files = True
    return config
