"""The `db3kd demo` command."""

from pathlib import Path
from typing import Annotated

import typer

from db3kd.cli.options.shared import Seed
from db3kd.cli.outputs import refuse_existing


def demo(
    out: Annotated[Path, typer.Option(help="New folder of the demo.")] = Path("runs/demo"),
    quick: Annotated[
        bool, typer.Option("--quick", help="Use tiny sizes, to test the installation in seconds.")
    ] = False,
    seed: Seed = 0,
) -> None:
    """Train a teacher on real images, and compare students that learn from its decisions alone.

    The demo trains a teacher on mnist5k. It then compares strategies, each with a student of 1,000
    unlabelled images of mnist5k and at most 10,000 decisions, one of them without images. It writes
    a report, takes less than five minutes on two cores, and needs no GPU.

    For example:

        db3kd demo --out runs/demo
    """
    from db3kd.cli.commands.compare import print_comparison
    from db3kd.pipelines import run_demo

    refuse_existing(out)
    print_comparison(run_demo(out, quick=quick, seed=seed))
    print(
        "next: db3kd distill --teacher my_package.my_module:predict --classes 10 --data my_images "
        "--budget 20000 --dry-run"
    )
