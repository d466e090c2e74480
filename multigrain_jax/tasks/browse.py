"""Task `browse`: a page and an HTTP API to search a collection and review it."""

import contextlib
import importlib.util
import os
import re
from collections.abc import Generator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ml_collections import ConfigDict

from multigrain_jax.data.bucket_paths import as_path
from multigrain_jax.data.decoding import Decoding
from multigrain_jax.descriptors.folder import DescriptorSettings
from multigrain_jax.descriptors.index import DescriptorIndex
from multigrain_jax.descriptors.roots import is_below
from multigrain_jax.errors import InputError
from multigrain_jax.opened_model import OpenedModel
from multigrain_jax.remedies import install
from multigrain_jax.tasks.bounds import number_problems
from multigrain_jax.tasks.check import (
    dtype_problems,
    path_problems,
    refuse,
    require_photos,
)
from multigrain_jax.tasks.copy_threshold import known_threshold
from multigrain_jax.tasks.embed_record import (
    open_collection,
    open_photos,
    require_files,
    roots_of,
    workdir_of,
)
from multigrain_jax.tasks.idle import idle_of_weights, idle_problems
from multigrain_jax.tasks.photos import decoding_of_database, photo_problems
from multigrain_jax.tasks.prepare import one_writer
from multigrain_jax.tasks.search import open_query_model
from multigrain_jax.terminal import tell_result
from multigrain_jax.workdir import write_config

if TYPE_CHECKING:
    from multigrain_jax.browse.collection import Collection
    from multigrain_jax.browse.decoders import Decoders
    from multigrain_jax.browse.embedder import Embedder
    from multigrain_jax.browse.meters import Meters
    from multigrain_jax.browse.photo_files import PhotoFiles
    from multigrain_jax.browse.review import Review
    from multigrain_jax.browse.services import Services
    from multigrain_jax.browse.thumbnails import Thumbnails

PACKAGES = ("starlette", "uvicorn", "python_multipart")
THUMBNAILS_FOLDER = "thumbnails"
MARKS_FILE = "marks.json"
# Requests hold so much of what was uploaded, all of them together.
MAX_HELD_BYTES = 1 << 30


@one_writer
def run(config: ConfigDict, workdir: Path) -> dict[str, float]:
    """Serve until the process is told to stop.

    Raises:
        InputError: a config that cannot work, an address that cannot be listened on,
            or a collection whose model is not there.
    """
    settings = config.to_dict()
    refuse(_problems(settings))
    if config.restore:
        return restore(workdir)
    from multigrain_jax.browse.app import make_app
    from multigrain_jax.browse.server import (
        address_of,
        listen,
        open_in_browser,
        serve,
    )

    index = open_collection(settings)
    require_photos(int(index.live.sum()), "database", config.database)
    require_files(index, config.database)
    roots = roots_of(index, root=config.data.root)
    _require_outside(workdir, roots)
    # Before anything is compiled: a port that is taken is known at once.
    with listen(config.host, config.port) as opened:
        # The secret is not written down.
        write_config(workdir, {**settings, "token": config.token and "given"})
        with open_services(settings, index, workdir, roots) as services:
            host, port = config.host, opened.getsockname()[1]
            review = open_review(
                services,
                workdir,
                lowest=config.lowest_threshold,
                allow_moves=config.allow_moves,
            )
            app = make_app(services, review, host=host, port=port, token=config.token)
            address = address_of(host, opened)
            print(f"{len(services.collection)} photos; Ctrl-C ends the server")
            tell_result("address", address)
            if config.open_browser:
                secret = f"/#token={quote(config.token)}" if config.token else ""
                open_in_browser(address + secret)
            serve(app, opened)
            review.close()
    return {}


@contextlib.contextmanager
def open_services(
    settings: Mapping[str, Any],
    index: DescriptorIndex,
    workdir: Path,
    roots: Sequence[str],
) -> Generator["Services"]:
    """What the server answers from, with its processes and threads while it lasts.

    Args:
        settings: the configuration.
        index: the collection.
        workdir: where thumbnails go.
        roots: folders that the photos are below.

    Raises:
        InputError: the collection's model is not there, or its photos are embedded at
            several sizes.
    """
    from multigrain_jax.browse.collection import Collection
    from multigrain_jax.browse.decoders import Decoders
    from multigrain_jax.browse.gate import Gate
    from multigrain_jax.browse.meters import Meters
    from multigrain_jax.browse.neighbours import NeighbourSearch
    from multigrain_jax.browse.services import Services

    made = _made_at_one_size(index, database=settings["database"])
    opened = open_query_model(settings, index)
    decoding = decoding_of_database(
        made,
        max_megapixels=settings["data"]["max_megapixels"],
        database=as_path(settings["database"]),
    )
    decoders = Decoders(
        settings["decode_processes"] or os.cpu_count() or 1,
        timeout_s=settings["decode_timeout_s"],
    )
    collection = Collection(index, roots=roots)
    gate = Gate(max_requests=settings["queue_size"], max_bytes=MAX_HELD_BYTES)
    meters = Meters({"waiting": lambda: gate.inside, "photos": lambda: len(collection)})
    files, thumbnails = _open_photos(
        collection,
        decoders,
        decoding,
        folder=workdir / THUMBNAILS_FOLDER,
        max_bytes=settings["thumbnail_cache_mb"] * 1e6,
    )
    embedder = _start_embedder(opened, made, meters, batch_size=settings["batch_size"])
    threshold = known_threshold(opened.checkpoint.path, opened.checkpoint.meta)
    try:
        yield Services(
            collection=collection,
            files=files,
            thumbnails=thumbnails,
            search=NeighbourSearch(collection),
            embedder=embedder,
            decoders=decoders,
            gate=gate,
            meters=meters,
            decoding=decoding,
            test_size=made.test_size,
            test_mode=made.test_mode,
            smallest_side=opened.backbone.smallest_side,
            class_names=tuple(opened.class_names),
            threshold=threshold.start,
            threshold_origin=threshold.origin,
        )
    finally:
        decoders.close()
        embedder.close()


def _made_at_one_size(index: DescriptorIndex, *, database: str) -> DescriptorSettings:
    assert index.settings is not None  # it was opened from a folder
    if index.settings.test_sizes:
        raise InputError(
            f"database: the photos of {database} are embedded at the sizes "
            f"{index.settings.test_sizes}, and the server embeds at one; embed them at "
            "one size into another workdir, or use configs/search.py"
        )
    return index.settings


def _open_photos(
    collection: "Collection",
    decoders: "Decoders",
    decoding: Decoding,
    *,
    folder: Path,
    max_bytes: float,
) -> tuple["PhotoFiles", "Thumbnails"]:
    """What reads the photos of a collection, and makes and keeps small ones."""
    from multigrain_jax.browse.decoders import PictureJob
    from multigrain_jax.browse.photo_files import PhotoFiles
    from multigrain_jax.browse.thumbnails import SIDE, ThumbnailCache, Thumbnails

    files = PhotoFiles(
        collection,
        open_source=partial(open_photos, workdir_of(collection.index)),
        max_bytes=decoding.max_bytes,
    )
    thumbnails = Thumbnails(
        files,
        ThumbnailCache(folder, max_bytes=max_bytes),
        decode=lambda data: decoders.submit(PictureJob(data, decoding, SIDE)).result(),
    )
    return files, thumbnails


def _start_embedder(
    opened: OpenedModel,
    made: DescriptorSettings,
    meters: "Meters",
    *,
    batch_size: int,
) -> "Embedder":
    """What embeds photos as the collection was, every shape compiled."""
    from multigrain_jax.browse.embedder import Embedder

    def on_batch(count: int, seconds: float) -> None:
        meters.count("photos_embedded_total", count)
        meters.count("batches_total")
        meters.observe("network_seconds", seconds)

    embedder = Embedder(
        opened,
        test_size=made.test_size,
        test_mode=made.test_mode,
        batch_size=batch_size,
        on_batch=on_batch,
    )
    print(
        f"{opened.name} from {opened.checkpoint.path}: {len(embedder.canvases)} "
        f"shapes, up to {embedder.batch_sizes[-1]} photos at once, are compiled",
        flush=True,
    )
    embedder.start()
    return embedder


def open_review(
    services: "Services", workdir: Path, *, lowest: float, allow_moves: bool
) -> "Review":
    """What the review of duplicates answers from.

    Args:
        services: of the server.
        workdir: where marks and the trash are.
        lowest: the similarity of the least similar pairs.
        allow_moves: whether files may be moved.

    Raises:
        InputError: marks or a log that are none.
    """
    from multigrain_jax.browse.duplicates import Duplicates
    from multigrain_jax.browse.marks import Marks
    from multigrain_jax.browse.review import Review
    from multigrain_jax.browse.trash import TRASH_FOLDER, Trash

    duplicates = Duplicates(
        services.collection,
        services.files,
        services.search,
        decoding=services.decoding,
        lowest=lowest,
    )
    review = Review(
        services.collection,
        services.files,
        duplicates,
        Marks(workdir / MARKS_FILE, services.collection),
        Trash(workdir / TRASH_FOLDER),
        allow_moves=allow_moves,
    )
    review.hide_moved()
    return review


def restore(workdir: Path) -> dict[str, float]:
    """Bring back all files that were moved to a workdir's trash.

    Raises:
        InputError: some could not be brought back; the others are.
    """
    from multigrain_jax.browse.trash import TRASH_FOLDER, Trash

    restored, problems = Trash(workdir / TRASH_FOLDER).restore()
    print(f"{len(restored)} files are back from {workdir / TRASH_FOLDER}")
    if problems:
        raise InputError(
            f"{len(problems)} files could not be brought back, expected their places "
            "to be free; mend that and run this again:\n  " + "\n  ".join(problems)
        )
    return {}


def _require_outside(workdir: Path, roots: Sequence[str]) -> None:
    """Refuse a workdir whose thumbnails would become photos of the collection."""
    place = os.path.realpath(workdir)
    for root in roots:
        if place == os.path.realpath(root) or is_below(place, os.path.realpath(root)):
            raise InputError(
                f"--workdir: {workdir} is inside of {root}, a folder of the "
                "collection, where `embed` would take thumbnails for photos; choose a "
                "folder elsewhere"
            )


def _problems(settings: Mapping[str, Any]) -> list[str]:
    problems = [
        *([] if settings["restore"] else path_problems(settings, ("database",))),
        *photo_problems(settings["data"]),
        *dtype_problems(settings),
        *idle_problems(settings, idle_of_weights(settings)),
        *number_problems(settings),
    ]
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        problems.append(
            f"task: 'browse' needs {', '.join(missing)}, found none; install the "
            f"extra: {install('browse')}"
        )
        return problems
    from multigrain_jax.browse.security import is_loopback

    if not settings["token"] and not is_loopback(settings["host"]):
        problems.append(
            f"token: found none, expected one where host = {settings['host']!r} lets "
            "other machines in; give it with --config.token=SECRET"
        )
    given = settings["token"]
    if given is not None and not re.fullmatch(r"[!-~]+", given):
        problems.append(
            f"token: found {'other characters' if given else 'an empty one'}, "
            "expected letters, digits and signs of ASCII, without spaces, as HTTP "
            "sends them"
        )
    return problems
