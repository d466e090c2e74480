"""Photos of a collection that something may be wrong with, the worst first.

    python -m multigrain_jax.main --config configs/health.py \
        --config.database=workdirs/embed

Likely mislabels (folders are the classes), outliers, and pictures that are dark,
blurred, tiny or nearly empty, each with its reason. Results: health.csv, report.html.
Nothing is moved or deleted. Descriptors are those that `embed` has made; the photos are
read once, unless look_at_photos is False.
"""

import ml_collections
from ml_collections import config_dict


def get_config() -> ml_collections.ConfigDict:
    """The configuration; every value can be set with --config.key=value."""
    config = ml_collections.ConfigDict()
    config.task = "health"
    config.database = config_dict.placeholder(str)
    # Where the photos of the database are now, if they were moved since.
    config.data = ml_collections.ConfigDict()
    config.data.root = config_dict.placeholder(str)
    config.verify = False  # check all digests first; each is checked when it is read
    config.num_neighbours = 10  # of each photo, for mislabels and outliers
    # A photo is a likely mislabel if half of its neighbours are of one other folder. If
    # fewer than this share of all photos have their nearest photo in their own folder,
    # folders are no classes (albums, months), and no photo is a likely mislabel.
    config.classes_agree = 0.5
    # An outlier is this many standard deviations less similar to its neighbours than
    # the median photo is to its own.
    config.outlier_deviations = 5.0
    config.look_at_photos = True
    config.dark_below = 0.15  # 19 of 20 pixels are darker than this share of white
    config.blurred_above = 0.65  # the measure of Crete et al., at 512 pixels
    config.tiny_below = 200  # the longer side, in pixels
    config.empty_above = 0.98  # so large a share of the pixels is of one shade
    return config
