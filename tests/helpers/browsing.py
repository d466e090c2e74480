"""Small collections, and what a server of them answers from."""

import contextlib
import shutil
from types import SimpleNamespace

from helpers.configs import small_eval_config
from helpers.photos import noise_photo, write_noise_photos

from configs import browse, embed
from multigrain_jax.tasks import embed as run_embed
from multigrain_jax.tasks.browse import open_services
from multigrain_jax.tasks.embed_record import open_database, roots_of

HOSTILE = "<img src=x onerror=alert(1)>&\"'.png"
STRANGE_BYTES = "caf\udce9.png"


def make_collection(base, checkpoint, *, size=48):
    """Photos in folders, a copy of one, and hostile names; embedded."""
    root = base / "photos"
    write_noise_photos(root, ("trip/sea", "trip/hill"), count=3, sizes=((60, 48),))
    noise_photo(50, (48, 60), tint=2).save(root / HOSTILE)
    noise_photo(51, (50, 50), tint=1).save(root / STRANGE_BYTES)
    shutil.copy2(root / "trip" / "sea" / "0.png", root / "copy.png")
    config = small_eval_config(
        embed.get_config,
        root,
        checkpoint,
        test_size=size,
        test_mode="square",
        descriptor_dtype="float32",
    )
    run_embed.run(config, base / "embed")
    return SimpleNamespace(root=root, database=base / "embed")


@contextlib.contextmanager
def opened_services(made, workdir, **changes):
    """What a server of a collection answers from."""
    settings = browse.get_config().to_dict()
    settings |= {"database": str(made.database), "decode_processes": 1, **changes}
    index = open_database(made.database, verify=False, root=None)
    with open_services(settings, index, workdir, roots_of(index, root=None)) as found:
        yield found
