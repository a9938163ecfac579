"""Headers of weight files in a checkout, proven before a library sees them."""

from __future__ import annotations

import os
from pathlib import Path

from inference.errors import ModelRefused
from lfs.tensors import Header, read_header


def read(path: Path) -> Header:
    """Read and check the header of a file; the tensors themselves are not read, and no link is followed.

    Raises: ModelRefused, naming the file.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            return read_header(lambda start, end: os.pread(fd, end - start, start), os.fstat(fd).st_size)
        finally:
            os.close(fd)
    except (OSError, ValueError) as error:
        raise ModelRefused(f"{path.name} is not a sound safetensors file: {error}") from error
