"""What MkDocs does beside building `docs/`: pages and files of the repository around.

Links in Markdown are those among the repository's files. Of files outside `docs/`, the
pages in `PAGES` are pages of the site too, and whatever else a page links to is copied
to `files/`: so no address of a forge is needed, and a broken link is a warning, which
`mkdocs build --strict` refuses.
"""

import posixpath
import re
from collections.abc import Callable
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
# File of the repository -> page of the site.
PAGES = {
    "README.md": "index.md",
    "BENCHMARKS.md": "BENCHMARKS.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "SECURITY.md": "SECURITY.md",
}
REFERENCE = "reference.md"
LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)\s]*)?\))")
FENCE = re.compile(r"(^ *```.*?^ *```)", re.DOTALL | re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages around `docs/`, the reference, and every file that is linked to."""
    for name, uri in PAGES.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, uri, content=text))
    files.append(File.generated(config, REFERENCE, content=_reference()))
    for file in list(files.documentation_pages()):
        source = _source(file.src_uri)

        def copy(target: str) -> str:
            uri = _uri(target)
            path = ROOT / target
            if (
                uri.startswith("files/")
                and path.is_file()
                and uri not in files.src_uris
            ):
                files.append(File.generated(config, uri, abs_src_path=str(path)))
            return uri

        _relink(file.content_string, source, file.src_uri, copy)
    return files


def on_page_markdown(
    markdown: str, page: Page, config: MkDocsConfig, files: Files
) -> str:
    """The links of a page as they are on the site."""
    uri = page.file.src_uri
    return _relink(markdown, _source(uri), uri, _uri)


def _relink(text: str, source: str, uri: str, to_uri: Callable[[str], str]) -> str:
    """Replace the links to other files; those in examples of code stay.

    Args:
        text: Markdown.
        source: the file that it is in, from the root of the repository.
        uri: of the page.
        to_uri: from a file of the repository to one of the site.
    """

    def replace(found: re.Match[str]) -> str:
        before, link, after = found.groups()
        if ":" in link:
            return found[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
        own = posixpath.relpath(to_uri(target), posixpath.dirname(uri) or ".")
        return f"{before}{own}{after}"

    parts = FENCE.split(text)
    parts[::2] = [LINK.sub(replace, part) for part in parts[::2]]
    return "".join(parts)


def _source(uri: str) -> str:
    """The file of the repository that a page is made from."""
    return {page: name for name, page in PAGES.items()}.get(uri, f"docs/{uri}")


def _uri(source: str) -> str:
    """Where a file of the repository is on the site."""
    if source.startswith("docs/"):
        return source.removeprefix("docs/")
    return PAGES.get(source, f"files/{source}")


def _reference() -> str:
    """The public names of the package, of which mkdocstrings shows the docstrings."""
    init = (ROOT / "multigrain_jax" / "__init__.py").read_text(encoding="utf-8")
    homes = re.findall(r'^    "(\w+)": "([\w.]+)",$', init, re.MULTILINE)
    names = "\n\n".join(f"::: {home}.{name}" for name, home in homes)
    return (
        "# Python\n\nWhat `import multigrain_jax` offers: each name below is also "
        f"`multigrain_jax.NAME`.\n\n{names}\n"
    )
