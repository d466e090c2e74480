"""Self-contained HTML pages: results and curves.

A page is a list of sections; each function here makes one from plain data, as do
confusion.py of predictions and gallery.py of photos. Nothing is loaded from elsewhere:
styles and scripts are inline and pictures are data URIs.
"""

import base64
import hashlib
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from multigrain_jax.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Section(NamedTuple):
    """A part of a page.

    Attributes:
        heading: plain text.
        note: plain text below it; may be empty.
        body: HTML, with everything from outside already escaped.
    """

    heading: str
    note: str
    body: str


class Result(NamedTuple):
    """One line of a table of results.

    Attributes:
        name: what was measured.
        value: the score.
        explanation: what it means, in a sentence; may be empty.
        floor: a value that it is compared with.
        best: the best possible value, at which its bar is full; None: it is no score,
            such as a threshold, and has no bar.
        title: its name in words, which stands before the other; may be empty.
    """

    name: str
    value: float
    explanation: str = ""
    floor: float | None = None
    best: float | None = 1.0
    title: str = ""


def save_report(
    path: Path,
    *,
    title: str,
    subtitle: str,
    sections: Sequence[Section],
    script: str = "",
) -> None:
    """Write one HTML file that needs nothing but itself.

    Args:
        path: the file, replaced if it exists.
        title: the page's heading.
        subtitle: one line below it; may be empty.
        sections: made by `results_section` and its like, in their order.
        script: JavaScript that runs once the page is there.
    """
    page = render_page(title=title, subtitle=subtitle, sections=sections, script=script)
    # File names that are not UTF-8 arrive as lone surrogates, which have no encoding.
    with write_atomically(path) as file:
        file.write(page.encode(errors="replace"))


def render_page(
    *, title: str, subtitle: str, sections: Sequence[Section], script: str = ""
) -> str:
    """The HTML text that `save_report` writes."""
    script_policy, script_element, images = "", "", "data:"
    if script:
        # This text alone may run, whatever else came into the page. It may show photos
        # that lie where the page does: nothing is loaded from a network.
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        script_policy = f"; script-src 'sha256-{digest}'"
        images = "data: 'self' file:"
        script_element = f"<script>{script}</script>\n"
    policy = f"default-src 'none'; img-src {images}; style-src 'unsafe-inline'"
    policy += script_policy
    css = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    parts = "\n".join(_render_section(section) for section in sections)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="{policy}">
<title>{escape(title)}</title>
<style>
{css}</style>
</head>
<body>
<main>
<header><h1>{escape(title)}</h1>{_paragraph("subtitle", subtitle)}</header>
{parts}
</main>
{script_element}</body>
</html>
"""


def results_section(
    results: Sequence[Result], *, heading: str = "Results", note: str = ""
) -> Section:
    """A table of scores; a column of floors if any result has one."""
    with_floors = any(result.floor is not None for result in results)
    floor_heading = '<th scope="col">Floor</th>' if with_floors else ""
    rows = "\n".join(_render_result(result, with_floors) for result in results)
    body = (
        '<table class="results"><thead><tr><th scope="col">Measure</th>'
        f'<th scope="col">Score</th>{floor_heading}<th class="bar"></th></tr></thead>'
        f"<tbody>\n{rows}\n</tbody></table>"
    )
    return Section(heading, note, body)


def figures_section(
    figures: "Mapping[str, Figure]", *, heading: str = "Training", note: str = ""
) -> Section:
    """Drawings side by side, as vector graphics.

    Args:
        figures: by what they show, which is read to those who do not see them.
        heading: of the section.
        note: below the heading.
    """
    images = "\n".join(
        f'<img src="{figure_uri(figure)}" alt="{escape(shows)}" {_size(figure)}>'
        for shows, figure in figures.items()
    )
    return Section(heading, note, f'<div class="figures">\n{images}\n</div>')


def figure_uri(figure: "Figure") -> str:
    """A figure as a data URI, in SVG; equal figures give equal text."""
    import matplotlib  # most pages have no figure, and it takes half a second

    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "multigrain"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return data_uri("image/svg+xml", buffer.getvalue())


def _size(figure: "Figure") -> str:
    """Attributes by which its place is kept until it is drawn."""
    width, height = (round(100 * inches) for inches in figure.get_size_inches())
    return f'width="{width}" height="{height}"'


def data_uri(media_type: str, data: bytes) -> str:
    """Bytes as an address that holds them itself."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def _paragraph(css_class: str, text: str) -> str:
    return f'<p class="{css_class}">{escape(text)}</p>' if text else ""


def _render_section(section: Section) -> str:
    return (
        f"<section>\n<h2>{escape(section.heading)}</h2>"
        f'{_paragraph("note", section.note)}\n<div class="body">\n{section.body}\n'
        "</div>\n</section>"
    )


def _render_result(result: Result, with_floors: bool) -> str:
    name = escape(result.name)
    if result.title:
        name = f'{escape(result.title)} <code class="identifier">{name}</code>'
    explanation = (
        f'<span class="explanation">{escape(result.explanation)}</span>'
        if result.explanation
        else ""
    )
    floor = "" if result.floor is None else f"{result.floor:.3f}"
    floor_cell = f'<td class="floor">{floor}</td>' if with_floors else ""
    return (
        f'<tr><th scope="row">{name}{explanation}</th>'
        f'<td class="value">{result.value:.3f}</td>{floor_cell}'
        f'<td class="bar">{_bar(result)}</td></tr>'
    )


def _bar(result: Result) -> str:
    """How much of the best value was reached, with a tick at the floor."""
    best = result.best
    if best is None:
        return ""

    def percent(value: float) -> str:
        return f"{100 * float(np.clip(value / best, 0, 1)):.2f}%"

    tick = ""
    if result.floor is not None:
        tick = f'<div class="tick" style="left:{percent(result.floor)}"></div>'
    return (
        '<div class="track"><div class="fill" '
        f'style="width:{percent(result.value)}"></div>{tick}</div>'
    )
