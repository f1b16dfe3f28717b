"""The `db3kd demo` command."""

from pathlib import Path
from typing import Annotated

import typer

from db3kd.cli.options import Seed
from db3kd.cli.outputs import refuse_existing


def demo(
    out: Annotated[Path, typer.Option("--out", help="New folder of the demo.")] = Path("runs/demo"),
    quick: Annotated[
        bool, typer.Option("--quick", help="Use tiny sizes, to test the installation in seconds.")
    ] = False,
    seed: Seed = 0,
) -> None:
    """Run everything on real images: a teacher, its labels, students, a table and plots.

    The demo trains a teacher on mnist5k, labels some of its images with each measure, and compares
    students of these labels with baselines. Then it trains students without images. It takes a few
    minutes on two cores and needs no GPU.

    For example:

        db3kd demo --out runs/demo
    """
    from db3kd.pipelines import DemoSettings, run_demo

    refuse_existing(out)
    run_demo(DemoSettings.quick(seed) if quick else DemoSettings(seed=seed), out)
