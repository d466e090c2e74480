"""The part of a page that shows photos: queries, each with what was found for it."""

import functools
import io
import os
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Literal, NamedTuple, overload

from PIL import Image

from multigrain_jax.data.bucket_paths import ADDRESSES, file_path
from multigrain_jax.data.decoding import VIEWER, UndecodableImageError, decode
from multigrain_jax.data.reading import read_noted
from multigrain_jax.data.sources.files import require_readable
from multigrain_jax.data.sources.source import ImageSource
from multigrain_jax.errors import InputError
from multigrain_jax.files import escape_name
from multigrain_jax.pages.page import data_uri

THUMBNAIL_SIDE = 400  # pixels, the longer side
THUMBNAIL_QUALITY = 82
THUMBNAILS_KEPT = 256  # of 480 KB at most
# A page lies beside photos that are so many folders up from its own.
MAX_UPS = 2
# Files of these names are shown by every browser.
SHOWN_BY_BROWSERS = (".jpg", ".jpeg", ".jpe", ".png", ".gif", ".webp", ".avif", ".bmp")

Verdict = Literal["query", "right", "wrong", "ignored", "found"]
# Symbol and word beside the colour: the page reads without colour vision.
BADGES: Mapping[Verdict, str] = {
    "query": "query",
    "right": "✓ right",
    "wrong": "✗ wrong",
    "ignored": "– ignored",
    "found": "",  # where nobody knows what is right
}


class GalleryItem(NamedTuple):
    """One photo of a gallery.

    Attributes:
        load: reads the photo, of any size and mode; None where it is not readable. It
            is called when the page is made, for the photos that it shows.
        title: its class or name.
        similarity: to the query; None for the query itself.
        verdict: what it is to the query.
        path: of its file, to be copied and opened; None where it has none.
        note: a few words about it; may be empty.
    """

    load: Callable[[], Image.Image | None]
    title: str
    similarity: float | None
    verdict: Verdict
    path: str | None = None
    note: str = ""


class GalleryRow(NamedTuple):
    """A query and what was found for it, the most similar first.

    Attributes:
        query: the photo that was looked for.
        neighbours: what was found, in the order of the ranking.
        average_precision: of the query; None where it is not known.
        similarity: by which rows may be sorted; None: that of the first neighbour.
        note: a line above the photos; may be empty.
        is_readable: whether the query could be read: of others no score says anything.
    """

    query: GalleryItem
    neighbours: Sequence[GalleryItem]
    average_precision: float | None = None
    similarity: float | None = None
    note: str = ""
    is_readable: bool = True


class LazyRows(Sequence[GalleryRow]):
    """Rows that are made each time they are asked for: most of many are never shown."""

    def __init__(self, count: int, make_row: Callable[[int], GalleryRow]):
        """Have `count` rows; `make_row` makes one by its number, from 0 on."""
        self._count = count
        self._make_row = make_row

    def __len__(self) -> int:
        """How many rows there are."""
        return self._count

    @overload
    def __getitem__(self, number: int) -> GalleryRow: ...
    @overload
    def __getitem__(self, number: slice) -> "LazyRows": ...
    def __getitem__(self, number: int | slice) -> "GalleryRow | LazyRows":
        """One row, or some that are still not made."""
        # The range counts from the end, and refuses what is behind it.
        numbers = range(self._count)
        if isinstance(number, slice):
            chosen = numbers[number]
            return LazyRows(len(chosen), lambda place: self._make_row(chosen[place]))
        return self._make_row(numbers[number])


def gallery_body(rendered: Sequence[str]) -> str:
    """Rows of `render_row` as the HTML of a gallery."""
    rows = "\n".join(rendered)
    return f'<div class="gallery">\n{rows}\n</div>'


def has_files(row: GalleryRow) -> bool:
    """Whether a browser can show the query of a row, or a neighbour, from its file."""
    return any(_is_shown(item) for item in (row.query, *row.neighbours))


def render_row(
    row: GalleryRow, *, folder: Path | None = None, embed: bool = True
) -> str:
    """One row as HTML.

    Ranks count what counts: ignored neighbours have none.

    Args:
        row: the photos.
        folder: of the page, from which links to near files are relative.
        embed: hold small copies of the photos; else they are not read here, but loaded
            from their files by the browser when they come into view.
    """
    items = [_render_item(row.query, "", folder, embed)]
    rank = 0
    for item in row.neighbours:
        shown = ""
        if item.verdict != "ignored":
            rank += 1
            shown = f'<span class="rank">{rank}</span>'
        items.append(_render_item(item, shown, folder, embed))
    score, value = "", ""
    if row.average_precision is not None:
        score = (
            '<p class="row-score">average precision '
            f"<b>{row.average_precision:.3f}</b></p>"
        )
        value = f' data-average-precision="{row.average_precision!r}"'
    if row.note:
        score += f'<p class="row-score">{escape(row.note)}</p>'
    similarity = row.similarity
    if similarity is None and row.neighbours:
        similarity = row.neighbours[0].similarity
    if similarity is not None:
        value += f' data-similarity="{float(similarity)!r}"'
    if not row.is_readable:
        value += ' data-unreadable=""'
    photos = "\n".join(items)
    return (
        f'<div class="gallery-row" role="group"'
        f' aria-label="{escape(row.query.title)}"{value}>{score}'
        f'<div class="photos">\n{photos}\n</div></div>'
    )


def viewer_script() -> str:
    """JavaScript that shows a photo of a gallery large, with its path."""
    return Path(__file__).with_suffix(".js").read_text(encoding="utf-8")


def file_address(path: str, folder: Path | None) -> str | None:
    """The address of a file, for a link on a page in `folder`; None: there is none.

    Google's own page for an object of theirs, which asks who wants to see it. Relative
    where the file is at most `MAX_UPS` folders up from there: such a page may
    be moved together with the photos, or be served with them.
    """
    if path.startswith(ADDRESSES):
        scheme, _, name = path.partition("://")
        page = f"https://storage.cloud.google.com/{urllib.parse.quote(name)}"
        return page if scheme == "gs" else None
    if not os.path.isabs(path):
        return None
    base = None if folder is None else os.path.abspath(folder)
    if base is not None:
        relative = os.path.relpath(path, base)
        if relative.split(os.sep).count("..") <= MAX_UPS:
            # What begins with a colon's word would be a scheme.
            return "./" + urllib.parse.quote(os.fsencode(relative))
    return "file://" + urllib.parse.quote(os.fsencode(path))


def thumbnail_uri(image: Image.Image) -> str:
    """A photo as a JPEG data URI, at most `THUMBNAIL_SIDE` pixels wide and high."""
    small = image.convert("RGB")
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=THUMBNAIL_QUALITY)
    return data_uri("image/jpeg", buffer.getvalue())


def load_photo(path: str | Path) -> Image.Image | None:
    """A photo file as a viewer shows it, or None where it cannot be read.

    Of a size that is enough for thumbnails. Photos that pages show again and again are
    read once.
    """
    try:
        status = file_path(str(path)).stat()
        return _thumbnail(str(path), status.st_size, status.st_mtime_ns)
    except (OSError, UndecodableImageError, InputError):
        return None


@functools.lru_cache(maxsize=THUMBNAILS_KEPT)
def _thumbnail(path: str, size: int, mtime_ns: int) -> Image.Image:
    file = file_path(path)
    require_readable(file, max_bytes=VIEWER.max_bytes)
    return _small(decode(file.read_bytes(), VIEWER, side=THUMBNAIL_SIDE))


def _small(image: Image.Image) -> Image.Image:
    """The photo, or a copy whose longer side is what thumbnails are made from."""
    if max(image.size) <= THUMBNAIL_SIDE:
        return image
    scale = THUMBNAIL_SIDE / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    kind = Image.Resampling.LANCZOS
    return image.resize((width, height), kind, reducing_gap=2.0)


def load_photo_of(source: ImageSource, index: int) -> Image.Image | None:
    """A photo of a source, or None where it cannot be read.

    Of a size that is enough for thumbnails.
    """
    try:
        return read_noted(source, index, side=THUMBNAIL_SIDE).image
    except (OSError, UndecodableImageError):
        return None


def photos_of(source: ImageSource) -> Callable[[int], Image.Image | None]:
    """Reads photos of a source by their numbers, small: each once for a whole page."""

    @functools.lru_cache(maxsize=THUMBNAILS_KEPT)
    def load(index: int) -> Image.Image | None:
        image = load_photo_of(source, index)
        return None if image is None else _small(image)

    return load


def _is_shown(item: GalleryItem) -> bool:
    path = item.path or ""
    return os.path.isabs(path) and path.lower().endswith(SHOWN_BY_BROWSERS)


def _picture(item: GalleryItem, folder: Path | None, embed: bool) -> str:
    """The photo, which a click opens, or a few words where it would be."""
    alt = escape(f"{item.title} ({item.verdict})")
    found = file_address(item.path, folder) if item.path else None
    address = escape(found) if found else None
    if embed:
        image = item.load()
        if image is None:
            return '<div class="unreadable">not readable</div>'
        picture = f'<img src="{thumbnail_uri(image)}" alt="{alt}">'
    elif _is_shown(item):
        picture = f'<img src="{address}" alt="{alt}" loading="lazy" decoding="async">'
    else:
        picture = '<div class="unreadable">not in this page</div>'
    if address is None:
        return picture
    return (
        f'<a class="open" href="{address}" target="_blank" rel="noopener">{picture}</a>'
    )


def _render_item(item: GalleryItem, rank: str, folder: Path | None, embed: bool) -> str:
    path, name = "", ""
    if item.path is not None:
        path = f' data-path="{escape(escape_name(item.path))}"'
        own = os.path.basename(item.path)
        if own not in item.title:
            name = f'<span class="name">{escape(escape_name(own))}</span>'
    similarity = ""
    if item.similarity is not None:
        similarity = f'<span class="similarity">similarity {item.similarity:.3f}</span>'
    badge = BADGES[item.verdict]
    if badge:
        badge = f'<span class="badge">{badge}</span>'
    note = f'<span class="item-note">{escape(item.note)}</span>' if item.note else ""
    # A long path is broken behind its folders first.
    title = escape(item.title).replace("/", "/<wbr>")
    return (
        f'<figure class="item {item.verdict}"{path}>{rank}'
        f"{_picture(item, folder, embed)}<figcaption>"
        f'<span class="title">{title}</span>{name}{similarity} '
        f"{badge}{note}</figcaption></figure>"
    )
