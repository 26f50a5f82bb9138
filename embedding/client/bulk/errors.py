"""What ends a bulk run before its time: one line that says what was wrong, where, and what to do."""

from __future__ import annotations

import errno
from typing import Final

from embedding.client.errors import ClientError


FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class BulkError(ClientError):
    """A run that cannot begin or go on; what it has written so far is kept."""


def told_of_writing(fault: OSError, where: str) -> BulkError:
    """Return what a failure to write into *where* is told as."""
    if fault.errno in FULL:
        return BulkError(f"no room left for {where}: free some and run the same command to go on")
    return BulkError(f"{where} cannot be written: {fault.strerror or fault}")
