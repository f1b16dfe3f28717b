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
    """Train a teacher on real images, train students on its decisions alone, compare strategies.

    The demo trains a teacher on mnist5k, and distils a student from 1,000 unlabelled images of
    mnist5k and 10,000 decisions. It then compares strategies at the same budget, one of them
    without images. It writes a report, takes less than five minutes on two cores, and needs no GPU.

    For example:

        db3kd demo --out runs/demo
    """
    from db3kd.pipelines import DemoSettings, run_demo
    from db3kd.report import comparison_table

    refuse_existing(out)
    result = run_demo(DemoSettings.quick(seed) if quick else DemoSettings(seed=seed), out)
    print(comparison_table(result.rows))
    print(f"teacher    {result.teacher_accuracy:.1%} accuracy")
    print(f"student    {result.headline}")
    print(f"report     {result.page}")
    print(f"next       {result.next_commands[0][1]}")
