"""Installs wheels beside several versions of torch, and tests the ops and a labelling run there.

    python tests/wheels/check.py dist/wheels --environments .venv-wheels --torch 2.11.0 2.13.0

Each pair of a Python and a torch is an environment, kept in the folder because torch takes
gigabytes; db3kd is removed from it first. The oldest Python of the wheels meets every torch, the
others the newest. Also times what a user may type: a wheel, the sources and their archive with
build isolation, the sources without. Prints a table; --save writes benchmarks/results/wheels.json,
in which rows of other wheels stay.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from build import ROOT, interpreters

sys.path.insert(0, str(ROOT))
from benchmarks.common.commit import commit
from benchmarks.common.record import RESULTS, measured, write

TESTS = [
    f"tests/ops/test_{name}.py"
    for name in ("build", "extension", "ops", "probe_ops", "op_grid", "op_fuzz")
]
PACKAGES = ["numpy", "safetensors", "pytest", "hypothesis", "setuptools>=77", "pybind11"]


def run(command: list[str], *, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def pip(python: Path, *words: str) -> tuple[float, str]:
    """Runs pip, and returns the seconds that it took and its error, if any."""
    start = time.perf_counter()
    done = run([str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", *words])
    return round(time.perf_counter() - start, 1), done.stderr.strip() if done.returncode else ""


def environment(folder: Path, program: str, version: str, torch: str) -> Path:
    """Returns the Python of the environment for this Python and torch, which is made if missing."""
    home = folder / f"py{version}-torch{torch}"
    python, complete = home / "bin" / "python", home / ".complete"
    if not complete.exists():
        run([program, "-m", "venv", str(home)])
        _, error = pip(python, "install", f"torch=={torch}", *PACKAGES)
        if error:
            sys.exit(f"torch {torch} for Python {version}: {error}")
        complete.touch()
    return python


def tested(python: Path) -> dict[str, object]:
    """Returns the torch and the build, the counts of the op tests, and a digest of labels."""
    said = run([str(python), "-P", "-c", FACTS], cwd=ROOT.parent)
    if said.returncode != 0:
        return {"passed": 0, "failed": 1, "error": said.stderr.splitlines()[-1]}
    done = run([str(python), "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS])
    counts = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|error)", done.stdout)}
    labels = run(
        [str(python), "-P", str(Path(__file__).with_name("labelling.py"))], cwd=ROOT.parent
    )
    return {
        **json.loads(said.stdout),
        "passed": counts.get("passed", 0),
        "failed": counts.get("failed", 0) + counts.get("error", 0) + (labels.returncode != 0),
        "labels": labels.stdout.strip() or labels.stderr.splitlines()[-1],
    }


FACTS = """
import json, torch
from db3kd.ops import extension
built = extension.build_config()
about = {"torch": torch.__version__, "built_against": built["torch_version"], "cuda": built["cuda"]}
print(json.dumps(about))
"""


def pairs(wheels: Path, environments: Path, torches: list[str]) -> Iterator[tuple[Path, str, Path]]:
    """Yields each wheel, its Python's version, and the Python of an environment to try it in.

    The CPU wheel of the oldest Python meets every torch, those of the others the newest. A CUDA
    wheel, in a folder such as cuda13, meets every torch for this CUDA.
    """
    programs = interpreters()

    def version(wheel: Path) -> str:
        return re.sub(r".*-cp3(\d+)-.*", r"3.\1", wheel.name)

    def made(wheel: Path, torch: str) -> Path:
        return environment(environments, programs[version(wheel)], version(wheel), torch)

    oldest_first = sorted(wheels.glob("*.whl"), key=lambda wheel: int(version(wheel)[2:]))
    for wheel in oldest_first:
        for torch in torches if wheel == oldest_first[0] else torches[-1:]:
            yield wheel, version(wheel), made(wheel, torch)
    for wheel in sorted(wheels.glob("cuda*/*.whl")):
        for torch in torches:
            python = made(wheel, torch)
            cuda = run([str(python), "-c", "import torch; print(torch.version.cuda)"]).stdout
            if cuda.split(".")[0] == wheel.parent.name.removeprefix("cuda"):
                yield wheel, version(wheel), python


def check(wheels: Path, environments: Path, torches: list[str]) -> Iterator[dict[str, object]]:
    """Yields a row for each pair of a wheel and an environment."""
    for wheel, version, python in pairs(wheels, environments, torches):
        pip(python, "uninstall", "--yes", "db3kd")
        seconds, error = pip(python, "install", "--no-deps", str(wheel))
        row = {
            "python": version,
            "wheel": str(wheel.relative_to(wheels)),
            "bytes": wheel.stat().st_size,
            "install_s": seconds,
        }
        row |= {"failed": 1, "error": error} if error else tested(python)
        if row.get("cuda") not in (None, wheel.parent != wheels):
            row |= {"failed": 1, "error": f"a CUDA build: expected {not row['cuda']}"}
        yield row


def source_installs(program: str, torch: str) -> Iterator[dict[str, object]]:
    """Times installs from the sources in a fresh environment that only has torch and its needs."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        python = environment(folder, program, "x", torch)
        done = run([str(python), "setup.py", "--quiet", "sdist", "--dist-dir", temporary])
        if done.returncode != 0:
            sys.exit(f"sdist: {done.stderr.strip()}")
        archive = next(folder.glob("db3kd-*.tar.gz"))
        for name, words in {
            "pip install .": [str(ROOT)],
            f"pip install {archive.name}": [str(archive)],
            "pip install --no-build-isolation .": ["--no-build-isolation", str(ROOT)],
        }.items():
            pip(python, "uninstall", "--yes", "db3kd")
            seconds, error = pip(python, "install", "--no-deps", *words)
            row = {"command": name, "torch": torch, "install_s": seconds}
            yield row | ({"failed": 1, "error": error} if error else tested(python))


def put(rows: list[dict[str, object]], row: dict[str, object]) -> None:
    """Puts a row in the place of the earlier one of the same wheel and torch, or at the end."""

    def is_replaced(each: dict[str, object]) -> bool:
        same = all(each.get(key) == row.get(key) for key in ("wheel", "command"))
        return same and each.get("torch") in (None, row.get("torch"))  # None: it did not install

    at = next((place for place, each in enumerate(rows) if is_replaced(each)), len(rows))
    rows[at : at + 1] = [row]


def table(rows: list[dict[str, object]]) -> str:
    """Returns the rows as a Markdown table."""
    lines = [
        "| Python | torch | wheel, bytes | install | op tests | labels |",
        "|---|" + "---|" * 5,
    ]
    for row in rows:
        tests = f"{row.get('passed', 0)} passed, {row['failed']} failed"
        wheel, seconds = f"{row['wheel']}, {row['bytes']:,}", f"{row['install_s']} s"
        words = [row["python"], row.get("torch"), wheel, seconds, tests, row.get("labels")]
        lines.append(f"| {' | '.join(map(str, words))} |")
    return "\n".join(lines)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("wheels", type=Path)
    options.add_argument("--environments", type=Path, required=True)
    options.add_argument("--torch", nargs="+", required=True, help="oldest first")
    options.add_argument("--save", action="store_true", help="write the result")
    options.add_argument("--no-sources", action="store_true", help="install wheels only")
    chosen = options.parse_args()
    environments = chosen.environments.resolve()
    environments.mkdir(exist_ok=True)
    file = RESULTS / "wheels.json"
    kept = json.loads(file.read_text()) if file.exists() else {"wheels": [], "sources": []}
    rows: list[dict[str, object]] = []
    sources: list[dict[str, object]] = []

    def keep(kind: str, found: list[dict[str, object]], row: dict[str, object]) -> None:
        """What was measured is kept, also if a later row stops."""
        print(row, flush=True)
        found.append(row)
        put(kept[kind], row | {"commit": commit()})
        if chosen.save:
            write(file, kept | {"measured": measured()})

    for row in check(chosen.wheels.resolve(), environments, chosen.torch):
        keep("wheels", rows, row)
    if not rows:
        sys.exit(f"{chosen.wheels}: expected wheels, found none; run `make wheels`")
    if not chosen.no_sources:
        oldest = interpreters()[str(rows[0]["python"])]
        for row in source_installs(oldest, chosen.torch[-1]):
            keep("sources", sources, row)
    print(f"\n{table(rows)}")
    if any(row["failed"] or not row.get("passed") for row in [*rows, *sources]):
        sys.exit("test-wheels: failed")


if __name__ == "__main__":
    main()
