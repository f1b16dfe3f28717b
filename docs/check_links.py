"""Checks the links of the built site, offline: python docs/check_links.py FOLDER.

Every link to a page, an image or a heading of the site has to lead somewhere. Addresses of other
sites are counted, not opened.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class _Page(HTMLParser):
    """Collects the ids and the links of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.ids.add(value)
            if name in ("href", "src") and value:
                self.links.append(value)


def broken_links(folder: Path) -> tuple[list[str], int, int]:
    """Returns the broken links of a site, and the numbers of links inside and to other sites.

    Args:
        folder: The folder that holds the site's index.html.
    """
    pages = {path.resolve(): _Page(path.read_text()) for path in folder.rglob("*.html")}
    broken, inside, outside = [], 0, 0
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                outside += parts.scheme in ("http", "https")
                continue
            inside += 1
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            lost = not target.is_file()
            if not lost and anchor and target in pages:
                lost = anchor not in pages[target].ids
            if lost:
                broken.append(f"{path.relative_to(folder.resolve())}: {link}")
    return broken, inside, outside


def main(folder: str) -> None:
    """Prints what was found, and exits with status 1 if a link is broken."""
    broken, inside, outside = broken_links(Path(folder))
    print(f"{inside:,} links inside the site, {outside:,} to other sites")
    if broken:
        sys.exit("broken links:\n" + "\n".join(broken))


if __name__ == "__main__":
    main(*sys.argv[1:])
