"""Teachers behind a network.

`open_inference_teacher` and `rest_teacher` open a `RemoteTeacher`. It sends several requests at
once as `RequestSettings` specify, repeats those that fail, and pays for no image twice if it can
avoid that. Its HTTP client defends itself against hostile servers, and a `SecretHeader` reaches no
server but its own.
"""

from db3kd.teachers.remote.http import split_url
from db3kd.teachers.remote.open_inference import open_inference_teacher
from db3kd.teachers.remote.remote_teacher import RemoteTeacher
from db3kd.teachers.remote.request_settings import RequestSettings
from db3kd.teachers.remote.rest import rest_teacher
from db3kd.teachers.remote.secret_header import SecretHeader, check_secret_allowed

__all__ = [
    "RemoteTeacher",
    "RequestSettings",
    "SecretHeader",
    "check_secret_allowed",
    "open_inference_teacher",
    "rest_teacher",
    "split_url",
]
