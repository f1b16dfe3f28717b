"""From images and a teacher to labels: distances, soft labels, runs on disk."""

from db3kd.labelling.label_files import load_labels
from db3kd.labelling.label_images import label, label_chunks
from db3kd.labelling.label_run import LabelRun, open_run
from db3kd.labelling.labels import Labels
from db3kd.labelling.recovered import Recovered
from db3kd.labelling.run_writer import write_run
from db3kd.labelling.settings import LabelSettings
from db3kd.labelling.soft_labels import SoftLabelSettings, with_soft_labels
from db3kd.labelling.source import Source

__all__ = [
    "LabelRun",
    "LabelSettings",
    "Labels",
    "Recovered",
    "SoftLabelSettings",
    "Source",
    "label",
    "label_chunks",
    "load_labels",
    "open_run",
    "with_soft_labels",
    "write_run",
]
