"""report.html of retrieval: scores, their distribution, and a gallery to look through.

The gallery can be filtered, ordered and walked through with the keyboard; without
JavaScript it stands as it is.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from multigrain_jax.pages.gallery import (
    GalleryRow,
    gallery_body,
    render_row,
    viewer_script,
)
from multigrain_jax.pages.page import (
    Result,
    Section,
    figures_section,
    results_section,
    save_report,
)
from multigrain_jax.pages.plots import draw_distribution

# Thumbnails are added while the gallery stays below this: the page is about 5 MB.
MAX_GALLERY_BYTES = 4_700_000
MAX_ROWS = 200
PAGE_THUMBNAIL_SIDE = 128

RowKind = Literal["queries", "groups", "photos", "rows"]
# Which rows are shown where not all fit, and how the page says so.
Pick = Literal["ends", "spread", "first"]
PICKS: Mapping[Pick, str] = {
    "ends": ", the worst and the best",
    "spread": ", evenly spread",
    "first": ", the first",
}

# Of scored rows, and of the others; the first is how the page has them without a
# script. What a word means is in gallery_page.js.
ORDERS_SCORED: Mapping[str, str] = {
    "worst": "worst first",
    "best": "best first",
    "similar": "most similar first",
    "name": "by name",
}
ORDERS: Mapping[str, str] = {
    "listed": "as found",
    "similar": "most similar first",
    "different": "least similar first",
    "name": "by name",
}
ORDERS_OF: Mapping[RowKind, Mapping[str, str]] = {
    "queries": ORDERS,
    "groups": {**ORDERS, "listed": "largest first"},
    "photos": {**ORDERS, "listed": "as listed"},
    # Of predictions: what is similar is certain.
    "rows": {
        "listed": "as listed",
        "different": "most doubtful first",
        "similar": "most certain first",
        "name": "by name",
    },
}


def write_retrieval_page(
    path: Path,
    *,
    title: str,
    results: Sequence[Result],
    rows: Sequence[GalleryRow],
    average_precisions: np.ndarray | None = None,
    subtitle: str = "",
    heading: str = "Queries and what they found",
    note: str = "",
    rows_are: RowKind = "queries",
    before: Sequence[Section] = (),
) -> None:
    """Write a page that needs nothing but itself, of about 5 MB at most.

    Of more queries than fit, those with the lowest and those with the highest average
    precision are shown, or, where it is not known, some evenly spread over all; of
    groups, the first. The page says how many of how many. Photos of the others are
    never read.

    Args:
        path: the file, replaced if it exists.
        title: the page's heading.
        results: scores for the table; without any there is no table.
        rows: all queries, all of them with their average precision or none.
        average_precisions: [Q], of all queries, in [0, 1]; None draws no distribution.
        subtitle: a line below the title.
        heading: of the gallery.
        note: below the gallery's heading.
        rows_are: what a row is.
        before: sections between the scores and the gallery.
    """
    sections = [results_section(results)] if results else []
    if average_precisions is not None and len(average_precisions):
        figure = draw_distribution(average_precisions)
        sections.append(
            figures_section(
                {"histogram of average precision": figure}, heading="Distribution"
            )
        )
    sections += before
    folder = path.parent
    sections.append(
        _gallery(rows, heading=heading, note=note, rows_are=rows_are, folder=folder)
    )
    script = viewer_script()
    script += Path(__file__).with_suffix(".js").read_text(encoding="utf-8")
    save_report(path, title=title, subtitle=subtitle, sections=sections, script=script)


def _gallery(
    rows: Sequence[GalleryRow],
    *,
    heading: str,
    note: str,
    rows_are: RowKind,
    folder: Path,
) -> Section:
    # All rows have an average precision or none has; they may be made when asked for.
    scored = len(rows) > 0 and rows[0].average_precision is not None
    order = _worst_first(rows) if scored else list(range(len(rows)))
    pick: Pick = "ends" if scored else "spread"
    if rows_are != "queries":
        pick = "first"
    shown = _render_some(rows, order, pick, folder)
    kept = [shown[index] for index in order if index in shown]
    which = ""
    if len(kept) < len(rows):
        which = PICKS[pick]
    note = f"{note} Shown are {len(kept)} of {len(rows)} {rows_are}{which}.".strip()
    options = "".join(
        f'<option value="{value}">{words}</option>'
        for value, words in (ORDERS_SCORED if scored else ORDERS_OF[rows_are]).items()
    )
    controls = (
        f'<div class="controls" data-rows="{rows_are}" hidden><label>Filter by name '
        '<input name="filter" type="search" autocomplete="off" spellcheck="false">'
        f'</label><label>Order <select name="order">{options}</select></label>'
        '<output aria-live="polite"></output></div>'
        f'<p class="keys">Keys: / to the filter, ↑ ↓ through the {rows_are}, ← → along '
        "the photos, Enter shows one large.</p>"
    )
    return Section(heading, note, controls + gallery_body(kept))


def _worst_first(rows: Sequence[GalleryRow]) -> list[int]:
    values = [row.average_precision or 0.0 for row in rows]
    return np.argsort(values, kind="stable").tolist()


def _render_some(
    rows: Sequence[GalleryRow], order: Sequence[int], pick: Pick, folder: Path
) -> dict[int, str]:
    """HTML by the number of the row, of as many rows as fit."""
    # In all cases, any first part of the sequence is a fair choice.
    last = len(order) - 1
    if pick == "ends":
        picks = [n // 2 if n % 2 == 0 else last - n // 2 for n in range(len(order))]
    elif pick == "spread":
        spread = np.linspace(0, last, min(MAX_ROWS, len(order)))
        picks = _coarse_to_fine(np.unique(spread.astype(int)).tolist())
    else:
        picks = list(range(len(order)))
    rendered: dict[int, str] = {}
    size = 0
    for place in picks[:MAX_ROWS]:
        html = render_row(rows[order[place]], side=PAGE_THUMBNAIL_SIDE, folder=folder)
        size += len(html)
        if size > MAX_GALLERY_BYTES:
            break
        rendered[order[place]] = html
    return rendered


def _coarse_to_fine(positions: list[int]) -> list[int]:
    """The same positions, the first few of which spread over all, and so on."""
    bits = max(1, (len(positions) - 1).bit_length())
    reverse = [int(f"{n:0{bits}b}"[::-1], 2) for n in range(1 << bits)]
    return [positions[n] for n in reverse if n < len(positions)]
