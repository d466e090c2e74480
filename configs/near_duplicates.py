"""Photos of a collection that are nearly the same, in groups.

    python -m multigrain_jax.main --config configs/near_duplicates.py \
        --config.database=workdirs/embed --config.threshold=0.9

Results: groups.csv, pairs.csv and report.html, the largest groups first. Links to one
file are one photo; links.csv lists those that were as similar.
"""

import ml_collections
from ml_collections import config_dict


def get_config() -> ml_collections.ConfigDict:
    """The configuration; every value can be set with --config.key=value."""
    config = ml_collections.ConfigDict()
    config.task = "near_duplicates"
    config.database = config_dict.placeholder(str)
    # Where the photos of the database are now, if they were moved since.
    config.data = ml_collections.ConfigDict()
    config.data.root = config_dict.placeholder(str)
    config.verify = False  # check all digests first; each is checked when it is read
    # Least inner product of a pair; which one suits depends on the model: see
    # threshold_at_p90 in the scores of eval_retrieval.py:folder.
    config.threshold = 0.9
    return config
