"""The native extension: how it is loaded, its errors, and that a new build moved no bit."""

import json
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import op_digests
import pytest
import torch

from db3kd import ops
from db3kd.ops import extension

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
DIGESTS = Path(__file__).with_name("op_digests.json")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="digests of another C library's exp")
def test_every_op_gives_the_bits_that_it_always_gave():
    assert op_digests.digests() == json.loads(DIGESTS.read_text())


@pytest.mark.parametrize(
    ("reason", "torch_cuda", "expected"),
    [
        ("cannot import name '_C' from 'db3kd'", None, "no native extension for this Python"),
        (
            "libtorch_cuda.so: cannot open shared object file",
            None,
            "is built for CUDA, and this torch is a CPU build",
        ),
        ("libcudart.so.13: cannot open", None, "is built for CUDA, and this torch is a CPU build"),
        ("libcudart.so.13: cannot open", "12.8", "for CUDA 13, and this torch for CUDA 12.8"),
        ("_C.so: undefined symbol: torch_parallel_for", None, "needs torch 2.11 or newer"),
        ("_C.so: invalid ELF header", None, "is damaged"),
    ],
)
def test_a_binary_that_does_not_load_is_one_line_that_says_what_to_do(reason, torch_cuda, expected):
    line = extension.why_it_does_not_load(ImportError(reason), "2.10.0", torch_cuda)
    assert expected in line
    assert "install" in line
    assert len(line.splitlines()) == 1


WITHOUT_EDITABLE = (
    "import sys; sys.meta_path[:] = [each for each in sys.meta_path if 'ditable' not in repr(each)]"
)
"""The finder of an editable installation would find the real binary."""
BINARY = Path(extension._C.__file__)
OF_ANOTHER_PYTHON = "_C.cpython-399-x86_64-linux-gnu.so"


def whole() -> bytes:
    return BINARY.read_bytes()


SOURCES, SOURCES_OF_ANOTHER_PYTHON = "none in sources", "of another Python in sources"
BINARIES = {
    "none": (None, None, "has no native extension for this Python"),
    SOURCES: (None, None, "hold no native extension for this Python"),
    SOURCES_OF_ANOTHER_PYTHON: (
        OF_ANOTHER_PYTHON, lambda: b"", f"for this Python ({HERE}), only {OF_ANOTHER_PYTHON}: ",
    ),
    "of another Python": (
        OF_ANOTHER_PYTHON, lambda: b"", f"for this Python ({HERE}), only {OF_ANOTHER_PYTHON}: ",
    ),
    "no library": (BINARY.name, lambda: b"not a library", "is damaged"),
    "empty": (BINARY.name, lambda: b"", "is damaged"),
    "a part of the header": (BINARY.name, lambda: whole()[:50], "is damaged"),
    # The loader maps these, and the process ends when it reads past the end.
    "the begin": (BINARY.name, lambda: whole()[:5_000], "file cut short"),
    "the first half": (BINARY.name, lambda: whole()[: len(whole()) // 2], "file cut short"),
}  # fmt: skip
"""The name of a binary, its content, and the reason why it cannot be loaded."""

IMPORT_EACH = f"""
import os, sys, traceback
import torch  # once; each folder is imported from by a copy of this process
{WITHOUT_EDITABLE}
for folder in sys.argv[1:]:
    if os.fork() == 0:
        os.dup2(os.open(folder + "/stderr", os.O_WRONLY | os.O_CREAT), 2)
        sys.path.insert(0, folder)
        try:
            import db3kd
            db3kd.load_data
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.wait()
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


@pytest.fixture(scope="module")
def imports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """What an import with each of the binaries returns and prints."""
    folders = [tmp_path_factory.mktemp("package") for _ in BINARIES]
    package = Path(extension.__file__).parents[1]
    for folder, (kind, (name, content, _)) in zip(folders, BINARIES.items(), strict=True):
        (folder / "db3kd/ops").mkdir(parents=True)
        for file in ("__init__.py", "version.py", "errors.py", "ops/extension.py"):
            shutil.copy(package / file, folder / "db3kd" / file)
        (folder / "db3kd" / "data.py").write_text("import db3kd.ops.extension")
        if kind in (SOURCES, SOURCES_OF_ANOTHER_PYTHON):
            (folder / "csrc").mkdir()
            (folder / "setup.py").touch()
        if name is not None:
            (folder / "db3kd" / name).write_bytes(content())
    done = subprocess.run(
        [sys.executable, "-P", "-c", IMPORT_EACH, *map(str, folders)],
        env={"PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    printed = [(folder / "stderr").read_text() for folder in folders]
    return dict(
        zip(BINARIES, zip(map(int, done.stdout.split()), printed, strict=True), strict=True)
    )


@pytest.mark.parametrize("binary", BINARIES)
def test_an_import_without_a_fitting_binary_shows_no_chain_of_errors(imports, binary):
    code, printed = imports[binary]
    assert code == 1
    assert printed.count("Traceback") == 1
    last = printed.splitlines()[-1]
    assert last.startswith("ImportError: db3kd")
    assert BINARIES[binary][2] in last
    assert "install" in last
    assert "in <module>" in printed
    assert "ops/extension.py" not in printed  # the chain of imports that led to it
    if binary in (SOURCES, SOURCES_OF_ANOTHER_PYTHON):
        folder = re.search(r"from its sources in (\S+), which", last)[1]
        assert (Path(folder) / "csrc").is_dir()
        assert last.endswith(f"build the extension in the sources: pip install -e {folder}")
        assert "run Python in another folder to use the installed db3kd" in last


def test_torch_ops_raise_runtime_errors_that_name_the_class():
    index = torch.zeros(1, dtype=torch.int64)
    arguments = torch.zeros(1, 3), torch.zeros(1, 2), index, index
    with pytest.raises(
        RuntimeError, match=r"checks.cpp:\d+, ValueError: ends: expected \[E, D=3\]"
    ):
        torch.ops.db3kd.ray_lengths(*arguments)
    with pytest.raises(ValueError, match=r"^ends: expected \[E, D=3\]") as caught:
        ops.ray_lengths(*arguments)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("threads", [1, 2])
def test_the_error_of_a_parallel_loop_is_that_of_the_first_rows(threads):
    samples, ends = torch.zeros(2, 64), torch.zeros(2, 64)
    index = torch.zeros(10_000, dtype=torch.int64)
    bad = index.clone()
    bad[[1_234, 9_000]] = torch.tensor([7, 8])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with pytest.raises(IndexError, match=r"end_of: .* from 0 to 1, got 7 at 1234"):
            ops.ray_lengths(samples, ends, index, bad)
    finally:
        torch.set_num_threads(before)


def test_a_result_beyond_all_memory_is_named():
    rays = {"samples": torch.zeros(1, 1).expand(1, 2**40), "ends": torch.zeros(1, 1)}
    index = torch.zeros(2**10, dtype=torch.int64)
    with pytest.raises(
        torch.OutOfMemoryError, match=r"expected memory for \[1024, 1099511627776\]"
    ):
        ops.bracket_queries(
            rays["samples"],
            rays["ends"].expand(1, 2**40),
            index[:1],
            index,
            index,
            torch.ones(2**10),
            torch.ones(1),
            index,
            lower=0.0,
            upper=1.0,
        )
