"""The classes that a trained network sees in a photo or a folder of photos.

    python -m multigrain_jax.main --config configs/predict.py \
        --config.init_from=workdirs/folder --config.data.root=~/photos

data.root is a photo, or a folder with all its subfolders. Results: predictions.csv (of
each photo the five best classes with their probabilities, and the class that its folder
names, where that is one), results.json (how often the two agree) and report.html: the
photos by class, the most doubtful first, and those that lie in a folder of another
class. Photos that cannot be read are listed in skipped.txt.
"""

import ml_collections
from ml_collections import config_dict

from configs import eval_base


def get_config() -> ml_collections.ConfigDict:
    """The configuration; every value can be set with --config.key=value."""
    config = eval_base.get_config()
    config.task = "predict"
    del config.distributed  # it runs on one host
    del config.knn_probe
    del config.test_size, config.test_mode
    # None: the size that the checkpoint was trained or published for; of published
    # weights also their p.
    config.test_size = config_dict.placeholder(int)  # in pixels
    config.test_mode = config_dict.placeholder(str)  # "square" or "rect"
    return config
