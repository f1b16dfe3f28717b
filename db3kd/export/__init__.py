"""Writes students as files for deployment, and checks that they make the same decisions.

`export_model` writes ONNX, TorchScript, an exported program (`.pt2`) or weights. The file holds the
shape and the bounds of its images, the class names and the threshold, so `load_teacher` needs no
other arguments.
"""

from db3kd.export.check import ExportError
from db3kd.export.exporting import ExportResult, export_model
from db3kd.export.formats import FORMATS

__all__ = ["FORMATS", "ExportError", "ExportResult", "export_model"]
