"""Text that every file of a run can hold: names on disk, and words of workers, need not be Unicode."""

from __future__ import annotations


def storable(text: str) -> str:
    r"""Return *text* as UTF-8 can hold it: a byte that is no UTF-8 is spelled out as \udcXX.

    A picture's name in Latin-1, say, has such bytes; Python holds each as half a surrogate pair.
    """
    return text.encode("utf-8", "backslashreplace").decode()
