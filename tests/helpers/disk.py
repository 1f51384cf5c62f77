"""A disk that is full, for tests of what is written."""

import resource
from contextlib import contextmanager


@contextmanager
def room_for(size):
    """No file can grow beyond so many bytes; writing more is an OSError, `File too large`, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
