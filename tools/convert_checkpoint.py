r"""Convert PyTorch weights: the original's, timm's, torchvision's, your own script's.

python tools/convert_checkpoint.py joint_3B_0.5.pth weights/joint_3B_0.5

As `multigrain convert`, from a clone that is not installed.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from multigrain_jax.commands.convert import main
from multigrain_jax.terminal import outlive_readers

if __name__ == "__main__":
    outlive_readers()
    sys.exit(main(program="python tools/convert_checkpoint.py"))
