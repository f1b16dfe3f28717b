"""Opens pages in the headless Chromium that DB3KD_CHROMIUM names; `make test-browser` gets one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def chromium() -> Path | None:
    """Returns the browser's program, or None if DB3KD_CHROMIUM is not set."""
    named = os.environ.get("DB3KD_CHROMIUM")
    return Path(named).absolute() if named else None


@contextmanager
def running_browser() -> Iterator[Any]:
    """Runs the browser without a display, and yields a playwright `Browser`.

    Raises:
        RuntimeError: If DB3KD_CHROMIUM is not set.
    """
    from playwright.sync_api import sync_playwright

    program = chromium()
    if program is None:
        raise RuntimeError("DB3KD_CHROMIUM: expected the program of a Chromium; make test-browser")
    # The fetched browser has libraries beside it that a system without a desktop lacks.
    libraries = [str(program.parent / "al2023" / "lib"), os.environ.get("LD_LIBRARY_PATH", "")]
    environment = {**os.environ, "LD_LIBRARY_PATH": ":".join(filter(None, libraries))}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, env=environment)
        yield browser
        browser.close()
