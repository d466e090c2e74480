"""A PCA whitening for retrieval, folded into the classifier (MultiGrain, section 3.5).

The images are a folder, or a list file (one path a line, relative to data.root). The
paper used 20 000 photos of YFCC100M, whole, their longer side at the test size; the
list is in the original's repository. The result is a checkpoint whose embedding is
whitened and whose classifier gives the same ranking of classes:

    python -m multigrain_jax.main --config configs/whiten.py \
        --config.data.root=/data/yfcc100m --config.data.list_file=whiten.txt \
        --config.init_from=workdirs/finetune_p

With `num_components` (1500, as in the image similarity challenge of 2021) the embedding
is shorter, and the classifier goes on reading the unwhitened one.
"""

import ml_collections
from ml_collections import config_dict

from configs import eval_base


def get_config() -> ml_collections.ConfigDict:
    """The configuration."""
    config = eval_base.get_config()
    config.task = "whiten"
    del config.engine  # JAX computes what becomes part of a model
    config.data.decode = "exact"  # as the paper's, of a folder too
    config.test_size = 500
    config.test_mode = "rect"
    config.batch_size = 32
    # The covariance's small eigenvalues are below what bfloat16 can tell.
    config.compute_dtype = "float32"
    config.num_components = config_dict.placeholder(int)  # None: all D + 1
    config.include_bias_channel = True  # False: whiten the D others, pass it through
    # Smaller eigenvalues are raised to this share of their mean; 0: they are an error.
    config.eigenvalue_floor = 0.0
    # Split on which the scores before and after are measured (None: none).
    config.report_split = config_dict.placeholder(str)
    return config
