"""From images and a teacher to labels: distances, soft labels, runs on disk."""

from db3kd.labelling.label_images import label, label_chunks, with_soft_labels
from db3kd.labelling.label_run import LabelRun, SoftLabelSettings, Source, open_run, write_run
from db3kd.labelling.labels import Labels, load_labels
from db3kd.labelling.recovered import Recovered
from db3kd.labelling.settings import LabelSettings

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
