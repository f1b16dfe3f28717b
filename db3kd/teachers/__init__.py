"""Teachers: black boxes that name the class of an image. Knows nothing of boundary/."""

from db3kd.teachers.base import Teacher, TeacherError, decide_checked, describe
from db3kd.teachers.function import FunctionTeacher
from db3kd.teachers.loading import load_teacher
from db3kd.teachers.module import ModuleTeacher
from db3kd.teachers.onnx import OnnxTeacher
from db3kd.teachers.preprocessing import Preprocessing
from db3kd.teachers.remote.http import SecretHeader
from db3kd.teachers.remote.open_inference import open_inference_teacher
from db3kd.teachers.remote.rest import rest_teacher
from db3kd.teachers.remote.retry import RequestSettings
from db3kd.teachers.remote.served import ServedTeacher
from db3kd.teachers.rescaled import RescaledTeacher
from db3kd.teachers.signature import ModelOverrides

__all__ = [
    "FunctionTeacher",
    "ModelOverrides",
    "ModuleTeacher",
    "OnnxTeacher",
    "Preprocessing",
    "RequestSettings",
    "RescaledTeacher",
    "SecretHeader",
    "ServedTeacher",
    "Teacher",
    "TeacherError",
    "decide_checked",
    "describe",
    "load_teacher",
    "open_inference_teacher",
    "rest_teacher",
]
