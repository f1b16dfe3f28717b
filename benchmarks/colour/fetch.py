"""Makes the colour data sets from Debian packages, which it fetches and unpacks without root.

    python -m benchmarks.colour.fetch DIR

DIR/colour-photos.npz holds patches of ten photographs and DIR/colour-clipart.npz clip art, both of
3x32x32 pixels. Every command of the benchmarks and `db3kd.load_data` take such a file. A file that
exists is kept. DIR/packages keeps the packages (193 MB, and as much again unpacked), and can be
deleted afterwards.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from benchmarks.colour.arrays import Split, write
from benchmarks.colour.clipart import read_folders, split_clipart
from benchmarks.colour.packages import CLIPART, LOMIRI, MATE, unpack
from benchmarks.colour.patches import scaled, split_photographs

_NATURE = "usr/share/backgrounds/mate/nature"
_LOMIRI = "usr/share/backgrounds"

PHOTOGRAPHS = {
    "brushes": (LOMIRI, f"{_LOMIRI}/Picture_1A_by_freespace.jpg"),
    "dune": (MATE, f"{_NATURE}/Dune.jpg"),
    "flower": (MATE, f"{_NATURE}/FreshFlower.jpg"),
    "grass": (MATE, f"{_NATURE}/GreenMeadow.jpg"),
    "leaves": (LOMIRI, f"{_LOMIRI}/Dragonfly_by_Bolly.jpg"),
    "mountains": (LOMIRI, f"{_LOMIRI}/picosdeeuropa_by_Aitzol_Berasategi.jpg"),
    "pattern": (LOMIRI, f"{_LOMIRI}/analogpattern_by_Peter_Nerlich.jpg"),
    "raindrops": (MATE, f"{_NATURE}/RainDrops.jpg"),
    "stream": (LOMIRI, f"{_LOMIRI}/life_by_Aitzol_Berasategi.jpg"),
    "sunflower": (MATE, f"{_NATURE}/YellowFlower.jpg"),
}
"""By class, the package of a photograph and its path in it."""


def make_photos(packages: Path) -> tuple[Split, Split]:
    """Makes the train and test split of the photographs; `packages` is the folder of packages."""
    photographs = {}
    for name, (package, path) in PHOTOGRAPHS.items():
        with Image.open(unpack(package, packages) / path) as picture:
            photographs[name] = scaled(picture)
    return split_photographs(photographs)


def make_clipart(packages: Path) -> tuple[Split, Split]:
    """Makes the train and test split of the clip art; `packages` is the folder of packages."""
    root = unpack(CLIPART, packages) / "usr/share/openclipart/png"
    return split_clipart(read_folders(root))


SETS: dict[str, Callable[[Path], tuple[Split, Split]]] = {
    "colour-photos": make_photos,
    "colour-clipart": make_clipart,
}
"""The data sets by the name of their file."""


def main() -> None:
    """Makes the data sets that are missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="gets the data sets")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    options = parser.parse_args()
    for name in options.sets:
        file = options.folder / f"{name}.npz"
        if file.exists():
            print(f"{file}: kept")
            continue
        begun = time.monotonic()
        train, test = SETS[name](options.folder / "packages")
        write(file, train, test)
        print(
            f"{file}: {len(train.labels):,} train and {len(test.labels):,} test images of "
            f"{len(set(train.labels))} classes, {time.monotonic() - begun:.0f} s"
        )


if __name__ == "__main__":
    main()
