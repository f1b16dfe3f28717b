"""The peak memory of the process that is measured."""

import resource


def peak_mib() -> float:
    """Returns the peak resident memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
