"""How long a GPU computes during a run, and how much of that is the teacher's, by the profiler."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.common.timed_teacher import WrappedCalls, union_of
from db3kd.teachers import Teacher

_RANGE = "teacher"


def measure_activity(teacher: Teacher, run: Callable[[Any], object]) -> dict[str, Any]:
    """Profiles `run(teacher)` on a GPU.

    The profiler slows the host down, but not the kernels, so compare the seconds with the wall time
    of the same run without it.

    Args:
        teacher: The teacher; `run` gets it with each call marked.
        run: The run, short enough for the profiler's memory.

    Returns:
        `gpu_busy`, the seconds in which at least one kernel or copy was running, and
        `gpu_busy_in_teacher`, the sum of the kernels that the teacher launched; an `error` if the
        profiler does not work here; nothing on a CPU.
    """
    if torch.device(teacher.device).type != "cuda":
        run(_Marked(teacher))
        return {}
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    try:
        with torch.profiler.profile(activities=activities) as profile:
            run(_Marked(teacher))
            torch.cuda.synchronize(teacher.device)
        events = list(profile.events())
    except RuntimeError as error:  # for example if a container forbids CUPTI
        return {"activity_error": f"{type(error).__name__}: {str(error)[:200]}"}
    on_gpu = [
        (event.time_range.start, event.time_range.end)
        for event in events
        if event.device_type == torch.autograd.DeviceType.CUDA and event.name != _RANGE
    ]
    in_teacher = sum(
        event.device_time_total
        for event in events
        if event.device_type == torch.autograd.DeviceType.CPU and event.name == _RANGE
    )
    return {"gpu_busy": union_of(on_gpu) / 1e6, "gpu_busy_in_teacher": in_teacher / 1e6}


class _Marked(WrappedCalls):
    """Marks the calls of a teacher for the profiler."""

    def around(self, ask: Callable[[Tensor], Any], images: Tensor) -> Any:
        with torch.profiler.record_function(_RANGE):
            return ask(images)
