"""Makes links between files of the repository work on the site.

Pages link each other as files, so that they also work where the repository is read. On the site,
some files of the repository are pages (`PAGES`). Links to these become links to the pages, and
links to other files outside of `docs/` become the name of the file.
"""

import posixpath
import re
from pathlib import Path

from sphinx.application import Sphinx

PAGES = {
    "ARCHITECTURE.md": "architecture",
    "CHANGELOG.md": "changelog",
    "CONTRIBUTING.md": "contributing",
    "README.md": "index",
    "SECURITY.md": "security",
    "benchmarks/results/README.md": "results",
    "csrc/README.md": "native-ops",
    "examples/README.md": "examples",
    "examples/first_student.ipynb": "first-student",
}
"""Files of the repository that are pages of the site."""

_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^(```+|~~~+).*?^\1\s*$", re.DOTALL | re.MULTILINE)


def with_site_links(text: str, folder: str, root: Path) -> str:
    """Returns Markdown with links that work on the site.

    Args:
        text: The text of a file.
        folder: The folder of the file, relative to the root.
        root: The root of the repository.

    Raises:
        ValueError: If a link names a file that does not exist.
    """
    parts, end = [], 0
    for fence in _FENCE.finditer(text):
        parts += [_replaced(text[end : fence.start()], folder, root), fence[0]]
        end = fence.end()
    return "".join([*parts, _replaced(text[end:], folder, root)])


def _replaced(text: str, folder: str, root: Path) -> str:
    return _LINK.sub(lambda link: _site_link(link, folder, root), text)


def _site_link(link: re.Match[str], folder: str, root: Path) -> str:
    image, label, target = link.groups()
    path, mark, anchor = target.partition("#")
    if not path or "://" in path or path.startswith(("/", "mailto:", "data:")):
        return link[0]
    file = posixpath.normpath(posixpath.join(folder, path))
    if not (root / file).exists():
        raise ValueError(f"{folder}: expected links to files that exist, got {target}")
    if file in PAGES:
        return f"[{label}](/{PAGES[file]}.md{mark}{anchor})"
    if file.startswith("docs/"):
        return f"{image}[{label}](/{file.removeprefix('docs/')}{mark}{anchor})"
    if image:
        return f"![{label}](/../{file})"
    return label if "`" in label or "/" in label else f"{label} (`{file}`)"


def setup(app: Sphinx) -> dict[str, bool]:
    """Connects the replacement to pages and to files that they include."""
    root = Path(app.srcdir).parent

    def page(app: Sphinx, name: str, content: list[str]) -> None:
        folder = posixpath.dirname(f"docs/{name}")
        content[0] = with_site_links(content[0], folder, root)

    def included(app: Sphinx, path: Path, parent: str, content: list[str]) -> None:
        file = posixpath.normpath(posixpath.join("docs", path.as_posix()))
        content[0] = with_site_links(content[0], posixpath.dirname(file), root)

    app.connect("source-read", page)
    app.connect("include-read", included)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
