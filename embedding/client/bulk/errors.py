"""What ends a bulk run before its time: one line that says what was wrong, where, and what to do."""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from embedding.client.errors import ClientError


if TYPE_CHECKING:
    from collections.abc import Iterator

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class BulkError(ClientError):
    """A run that cannot begin or go on; what it has written so far is kept."""


@contextmanager
def writing(where: object) -> Iterator[None]:
    """Raise a BulkError that tells of *where* for an OSError within."""
    try:
        yield
    except OSError as fault:
        if fault.errno in FULL:
            told = f"no room left for {where}: free some and run the same command to go on"
        else:
            told = f"{where} cannot be written: {fault.strerror or fault}"
        raise BulkError(told) from None
