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
    has_files,
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

# Thumbnails are added while the gallery stays below this: the page is about 5 MB. The
# photos of further rows are loaded from their files.
MAX_GALLERY_BYTES = 4_200_000
MAX_ROWS = 200

RowKind = Literal["queries", "groups", "photos", "rows", "examples"]
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
    "examples": {**ORDERS, "listed": "worst first"},
}
# What a page says that has no rows.
NOTHING: Mapping[RowKind, str] = {
    "queries": "There is no query to show.",
    "groups": "Nothing found: no two photos are as similar as that.",
    "photos": "Nothing found.",
    "rows": "There is no photo to show.",
    "examples": "There are no two photos to compare.",
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
    """Write a page of about 5 MB at most.

    It holds the photos of as many rows as that allows; those of further rows, up to
    `MAX_ROWS`, are loaded from their files, where a browser can show them. Of more
    queries, those with the lowest and those with the highest average precision are
    shown, or, where it is not known, some evenly spread over all; of groups, the first.
    The page says how many of how many. Photos of the others are never read.

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
        gallery_section(
            rows, heading=heading, note=note, rows_are=rows_are, folder=folder
        )
    )
    save_report(
        path,
        title=title,
        subtitle=subtitle,
        sections=sections,
        script=gallery_script(),
    )


def gallery_script() -> str:
    """JavaScript of a page with a `gallery_section`."""
    own = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")
    return viewer_script() + own


def gallery_section(
    rows: Sequence[GalleryRow],
    *,
    heading: str,
    note: str,
    rows_are: RowKind,
    folder: Path,
) -> Section:
    """Rows to look through, with a filter and orders; arguments as of a page.

    Args:
        rows: queries or groups with their photos.
        heading: of the section.
        note: below the heading.
        rows_are: what a row is.
        folder: of the page.
    """
    # All rows have an average precision or none has; they may be made when asked for.
    scored = len(rows) > 0 and rows[0].average_precision is not None
    order, num_scored = list(range(len(rows))), len(rows)
    if scored:
        order, num_scored = _worst_first(rows)
    pick: Pick = "ends" if scored else "spread"
    if rows_are != "queries":
        pick = "first"
    picks = [*_picks(pick, num_scored), *range(num_scored, len(rows))]
    shown, num_held = _render_some(rows, order, picks, folder)
    kept = [shown[index] for index in order if index in shown]
    if rows:
        which = PICKS[pick] if len(kept) < len(rows) else ""
        note += f" Shown are {len(kept)} of {len(rows)} {rows_are}{which}."
    if num_held < len(kept):
        note += (
            f" This page holds the photos of {num_held}; those of the others are "
            "loaded from their files, where these still are."
        )
    options = "".join(
        f'<option value="{value}">{words}</option>'
        for value, words in (ORDERS_SCORED if scored else ORDERS_OF[rows_are]).items()
    )
    controls = (
        f'<div class="controls" data-rows="{rows_are}" hidden><label>Filter by name or '
        'folder <input name="filter" type="search" autocomplete="off" '
        'spellcheck="false"></label><label>Order '
        f'<select name="order">{options}</select></label>'
        '<output aria-live="polite"></output></div>'
        f'<p class="keys">Keys: / to the filter, ↑ ↓ through the {rows_are}, ← → along '
        "the photos, Enter shows one large.</p>"
    )
    if not rows:
        controls = f'<p class="nothing">{NOTHING[rows_are]}</p>'
    after = (
        '<p class="nothing-found" hidden>Nothing found: no name, folder or remark here '
        'has all of these words. <button type="button">Show all</button></p>'
        '<button type="button" class="more" hidden></button>'
    )
    return Section(heading, note.strip(), controls + gallery_body(kept) + after)


def _worst_first(rows: Sequence[GalleryRow]) -> tuple[list[int], int]:
    """The lowest average precision first; how many precede what could not be read."""
    keys = [(not row.is_readable, row.average_precision or 0.0) for row in rows]
    unreadable = sum(key[0] for key in keys)
    return sorted(range(len(rows)), key=keys.__getitem__), len(rows) - unreadable


def _picks(pick: Pick, count: int) -> list[int]:
    """Places among `count`: any first part of the list is a fair choice of them."""
    last = count - 1
    if pick == "ends":
        return [n // 2 if n % 2 == 0 else last - n // 2 for n in range(count)]
    if pick == "spread":
        spread = np.linspace(0, last, min(MAX_ROWS, count))
        return _coarse_to_fine(np.unique(spread.astype(int)).tolist())
    return list(range(count))


def _render_some(
    rows: Sequence[GalleryRow], order: Sequence[int], picks: list[int], folder: Path
) -> tuple[dict[int, str], int]:
    """HTML by the number of the row; and how many of them hold their photos."""
    rendered: dict[int, str] = {}
    size, num_held, is_full = 0, 0, False
    for place in picks[:MAX_ROWS]:
        row = rows[order[place]]
        if not is_full:
            html = render_row(row, folder=folder)
            size += len(html)
            is_full = size > MAX_GALLERY_BYTES
        if not is_full:
            num_held += 1
        elif has_files(row):
            html = render_row(row, folder=folder, embed=False)
        else:
            continue
        rendered[order[place]] = html
    return rendered, num_held


def _coarse_to_fine(positions: list[int]) -> list[int]:
    """The same positions, the first few of which spread over all, and so on."""
    bits = max(1, (len(positions) - 1).bit_length())
    reverse = [int(f"{n:0{bits}b}"[::-1], 2) for n in range(1 << bits)]
    return [positions[n] for n in reverse if n < len(positions)]
