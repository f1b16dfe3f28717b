"""What the command line loads to answer at once, and what other modules load: no more than they
use.
"""

import os
import subprocess
import sys

import pytest

from db3kd.cli.app import app

HEAVY = (
    *("torch", "numpy", "accelerate", "datasets", "pandas", "pyarrow", "PIL", "sklearn"),
    *("matplotlib", "ray", "onnxruntime", "tritonclient", "aiohttp", "safetensors"),
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
    """What a fresh interpreter prints."""
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1", **environment},
    )
    return found.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], []])
def test_the_first_answers_load_no_library_of_numbers(arguments):
    code = f"try: answer(*{arguments})\nexcept AssertionError: pass\n"
    assert python(f"{RUN}\n{code}\nprint(loaded())").splitlines()[-1] == "[]"


def test_the_help_of_every_command_loads_no_library_of_numbers():
    code = "".join(f"answer({name!r}, '--help')\n" for name in COMMANDS)
    said = python(f"{RUN}\n{code}\nprint(loaded())")
    assert said.count("Usage: db3kd ") == len(COMMANDS) == 10
    assert said.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("words", "completed"),
    [("db3kd ev", "evaluate"), ("db3kd label --queries-per-s", "--queries-per-sample")],
)
def test_completion_loads_no_library_of_numbers(words, completed):
    said = python(
        f"{RUN}\nanswer()\nprint(loaded())",
        _DB3KD_COMPLETE="complete_bash",
        COMP_WORDS=words,
        COMP_CWORD=str(len(words.split()) - 1),
    )
    assert said.split() == [completed, "[]"]


def test_the_version_is_the_packages():
    from importlib.metadata import version

    assert python(f"{RUN}\nanswer('--version')") == f"db3kd {version('db3kd')}\n"


def test_modules_load_no_extra_before_they_use_it():
    modules = (
        "db3kd.labelling, db3kd.labelling.dry_run, db3kd.labelling.worker_pool, "
        "db3kd.distillation, db3kd.synthesis"
    )
    extras = [name for name in HEAVY if name not in ("torch", "numpy", "safetensors")]
    said = python(f"import sys, {modules}\nprint([m for m in {extras} if m in sys.modules])")
    assert said.strip() == "[]"
