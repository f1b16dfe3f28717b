"""The names of what a run folder holds; the student is in `db3kd.models.weights.STUDENT_FILE`."""

from pathlib import Path

REPORT_FILE = "report.html"
"""The report of a distillation, or of a comparison."""

NETWORKS_FOLDER = "networks"
"""The networks of a distillation."""

LABELS_FOLDER = "labels"
"""The run of the distances, in the folder of a distillation."""

SAMPLES_FOLDER = "pseudo-samples"
"""The run of the pseudo samples, in the folder of a distillation."""


def answer_folders(out: Path) -> tuple[Path, Path, Path]:
    """Returns the folders in which the distillation in `out` may keep answers."""
    return out, out / LABELS_FOLDER, out / SAMPLES_FOLDER
