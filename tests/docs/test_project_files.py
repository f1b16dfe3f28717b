"""The files that describe the project agree with each other."""

import re
import tomllib
from pathlib import Path

import db3kd

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def tools(text: str, pattern: str) -> set[str]:
    """The program and subcommand of each line that the pattern finds."""
    return {
        " ".join(re.findall(r"^[\w-]+|(?<=ruff )\w+", found)) for found in re.findall(pattern, text)
    }


def test_hooks_of_commits_are_the_tools_of_make_lint():
    makefile = (ROOT / "Makefile").read_text()
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)[1]
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()

    assert tools(hooks, r"entry: \.venv/bin/(.*)") == tools(recipe, r"\$\(BIN\)/(.*)")


def test_the_version_has_one_place():
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {
        "attr": "db3kd.version.__version__"
    }
    cited = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)[1]
    assert cited == db3kd.__version__


def test_every_extra_is_pinned():
    pinned = re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    extras = PROJECT["project"]["optional-dependencies"].values()
    named = {re.match(r"[\w.-]+", package)[0] for extra in extras for package in extra}

    assert named - {"db3kd"} <= {name.lower() for name in pinned} | set(pinned)


def test_what_users_install_has_minimum_versions_that_the_pins_satisfy():
    project, pins = PROJECT["project"], (ROOT / "constraints.txt").read_text()
    pinned = dict(re.findall(r"^([\w.-]+)==([\d.]+)", pins.lower(), re.MULTILINE))
    extras = project["optional-dependencies"]
    names = ("train", "tracking", "data", "cli", "onnx", "remote")
    for package in (*project["dependencies"], *(each for name in names for each in extras[name])):
        name, least = re.match(r"([\w.-]+)(?:\[[\w,]+\])?>=([\d.]+)", package.lower()).groups()
        assert version(least) <= version(pinned[name]), package


def version(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))
