"""Teachers: black boxes that name the class of an image. Knows nothing of boundary/."""

from db3kd.teachers.base import Teacher, TeacherError, decide_checked, describe
from db3kd.teachers.files import load_teacher, save_teacher
from db3kd.teachers.function import FunctionTeacher
from db3kd.teachers.module import ModuleTeacher

__all__ = [
    "FunctionTeacher",
    "ModuleTeacher",
    "Teacher",
    "TeacherError",
    "decide_checked",
    "describe",
    "load_teacher",
    "save_teacher",
]
