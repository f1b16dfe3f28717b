"""Teachers: black boxes that return the class of an image and nothing else.

Any object with the members of `Teacher` is a teacher. `ModuleTeacher`, `FunctionTeacher`,
`TabularTeacher`, `OnnxTeacher` and `RemoteTeacher` wrap models; `load_teacher` opens them from
files, addresses and names. Searches call a teacher only through `decide_async_checked` and
`open_stream`, which check every decision.
"""

from db3kd.teachers.base import (
    UNANSWERED,
    DecisionStream,
    PendingDecisions,
    SingleClassError,
    Teacher,
    TeacherChangedError,
    TeacherError,
    UnknownClassError,
    class_names_of,
    describe,
)
from db3kd.teachers.decide import decide_async_checked, decide_checked
from db3kd.teachers.decision_streams import open_stream
from db3kd.teachers.functions.function import FunctionTeacher
from db3kd.teachers.functions.tabular import TabularTeacher
from db3kd.teachers.loading import load_teacher
from db3kd.teachers.onnx.teacher import OnnxTeacher
from db3kd.teachers.preprocessing import Preprocessing
from db3kd.teachers.remote import (
    RemoteTeacher,
    RequestSettings,
    SecretHeader,
    open_inference_teacher,
    rest_teacher,
)
from db3kd.teachers.rescaled import RescaledTeacher, check_scaled, takes_unit_images
from db3kd.teachers.signature import ModelOverrides
from db3kd.teachers.torch_modules.module import ModuleTeacher

__all__ = [
    "UNANSWERED",
    "DecisionStream",
    "FunctionTeacher",
    "ModelOverrides",
    "ModuleTeacher",
    "OnnxTeacher",
    "PendingDecisions",
    "Preprocessing",
    "RemoteTeacher",
    "RequestSettings",
    "RescaledTeacher",
    "SecretHeader",
    "SingleClassError",
    "TabularTeacher",
    "Teacher",
    "TeacherChangedError",
    "TeacherError",
    "UnknownClassError",
    "check_scaled",
    "class_names_of",
    "decide_async_checked",
    "decide_checked",
    "describe",
    "load_teacher",
    "open_inference_teacher",
    "open_stream",
    "rest_teacher",
    "takes_unit_images",
]
