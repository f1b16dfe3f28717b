"""The Debian packages that the pictures come from, and how they are fetched and unpacked.

The pictures are not part of this project. `openclipart-png` is in the public domain. The packages
of wallpapers are free under licences that differ by picture: GPL-2+ in `mate-backgrounds`, CC0,
CC-BY-4.0 and CC-BY-SA-4.0 in `lomiri-wallpapers-16.04`. Each package has them in its file
usr/share/doc/NAME/copyright.
"""

import hashlib
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Package:
    """One version of a Debian package.

    Attributes:
        name: The name of the package.
        version: Its version.
        sha256: The SHA-256 of its file, in hex.
    """

    name: str
    version: str
    sha256: str

    @property
    def file(self) -> str:
        """The name that apt-get gives the file."""
        return f"{self.name}_{self.version.replace(':', '%3a')}_all.deb"


CLIPART = Package(
    "openclipart-png",
    "1:0.18+dfsg-19",
    "f07f1545a2970c2cf3fa339bc2405da1a95cf2b1827bfa05bf73eb1c20291c02",
)
MATE = Package(
    "mate-backgrounds",
    "1.26.0-1",
    "7bf4c2209f34b4f61ba6d24c8b58c28b361e82e4b943aae6d42c030169af9e04",
)
LOMIRI = Package(
    "lomiri-wallpapers-16.04",
    "20.04.0-2",
    "a99ff6a3bfe451e4cc0682ecb3cc82e71740626d59e4845ae34a0a0e45421eab",
)


def unpack(package: Package, folder: Path) -> Path:
    """Returns the folder that a package is unpacked in, and fetches and unpacks it if necessary.

    `apt-get download` and `dpkg-deb -x` need no root. A file that is in `folder` already is not
    fetched, so a machine without apt can take it from https://snapshot.debian.org.

    Raises:
        SystemExit: If the file cannot be fetched or has another checksum.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file, unpacked = folder / package.file, folder / package.name
    if unpacked.is_dir():
        return unpacked
    if not file.exists():
        _run(["apt-get", "download", f"{package.name}={package.version}"], folder, package)
    found = sha256(file)
    if found != package.sha256:
        raise SystemExit(
            f"{file}: expected SHA-256 {package.sha256}, got {found}; delete the file and fetch "
            f"version {package.version} from https://snapshot.debian.org"
        )
    part = folder / f".{package.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    _run(["dpkg-deb", "-x", file.name, part.name], folder, package)
    part.rename(unpacked)
    return unpacked


def sha256(file: Path) -> str:
    """Returns the SHA-256 of a file, in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _run(command: list[str], folder: Path, package: Package) -> None:
    try:
        subprocess.run(command, cwd=folder, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(
            f"{' '.join(command)} failed: {error}; put {package.file} (version {package.version}, "
            f"https://snapshot.debian.org) into {folder}, and dpkg-deb into the path"
        ) from error
