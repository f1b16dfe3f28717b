"""Help, version and completion import no numeric library, and modules import extras late."""

import os
import subprocess
import sys

import pytest

import db3kd
from db3kd.cli.app import app

HEAVY = (
    *("torch", "numpy", "accelerate", "datasets", "pandas", "pyarrow", "PIL", "sklearn"),
    *(
        "matplotlib",
        "jinja2",
        "markupsafe",
        "ray",
        "onnxruntime",
        "tritonclient",
        "aiohttp",
        "safetensors",
    ),
)
OF_EXTRAS = (
    *(set(HEAVY) - {"torch", "numpy", "safetensors"}),
    "orjson",
    "rich",
    "tenacity",
    "typer",
)
COMMANDS = [command.callback.__name__.replace("_", "-") for command in app.registered_commands]

RUN = f"""
import sys
sys.argv[0] = "db3kd"
from db3kd.cli import main

def answer(*arguments):
    sys.argv[1:] = arguments
    try:
        main()
    except SystemExit as end:
        assert not end.code, (arguments, end.code)

def loaded():
    return [name for name in {HEAVY} if name in sys.modules]
"""


def python(code: str, **environment: str) -> str:
    """Returns what a fresh interpreter prints."""
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1", **environment},
    )
    return found.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], []])
def test_help_and_version_import_no_numeric_library(arguments):
    code = f"try: answer(*{arguments})\nexcept AssertionError: pass\n"
    assert python(f"{RUN}\n{code}\nprint(loaded())").splitlines()[-1] == "[]"


def test_the_help_of_each_command_imports_no_numeric_library():
    code = "".join(f"answer({name!r}, '--help')\n" for name in COMMANDS)
    printed = python(f"{RUN}\n{code}\nprint(loaded())")
    assert printed.count("Usage: db3kd ") == len(COMMANDS) == 11
    assert printed.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("words", "completed"),
    [("db3kd ev", "evaluate"), ("db3kd label --queries-per-s", "--queries-per-sample")],
)
def test_completion_imports_no_numeric_library(words, completed):
    printed = python(
        f"{RUN}\nanswer()\nprint(loaded())",
        _DB3KD_COMPLETE="complete_bash",
        COMP_WORDS=words,
        COMP_CWORD=str(len(words.split()) - 1),
    )
    assert printed.split() == [completed, "[]"]


def test_the_version_is_that_of_the_package():
    assert python(f"{RUN}\nanswer('--version')") == f"db3kd {db3kd.__version__}\n"


def test_modules_import_no_extra_before_they_use_it():
    modules = (
        "db3kd.labelling, db3kd.labelling.workers.worker_pool, "
        "db3kd.training, db3kd.answers, db3kd.scale, db3kd.surrogates, db3kd.synthesis, "
        "db3kd.report, db3kd.pipelines"
    )
    printed = python(
        f"import sys, {modules}\ndb3kd.label\nprint([m for m in {OF_EXTRAS} if m in sys.modules])"
    )
    assert printed.strip() == "[]"
