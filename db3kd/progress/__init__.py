"""Progress of long computations: live on a terminal, plain lines anywhere else."""

from db3kd.progress.display import (
    Progress,
    ProgressListener,
    RecentRate,
    adding_up,
    check_progress,
    duration,
    listening,
    report_units,
    show_progress,
)

__all__ = [
    "Progress",
    "ProgressListener",
    "RecentRate",
    "adding_up",
    "check_progress",
    "duration",
    "listening",
    "report_units",
    "show_progress",
]
