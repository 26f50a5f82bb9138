"""How much memory decoders take, all threads together: a budget from which each picture takes beforehand.

Threat: files of some kilobytes that need hundreds of megabytes each, one in every thread at once. What a
picture needs at its peak follows from its header: the bytes for a pixel were measured at 16 to 50 megapixels,
resizing included, with Pillow 13.0 and libjpeg-turbo 3, and rounded up.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol


if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from embedding.intake.headers import Header

_RGB: Final = 4  # as Pillow keeps it
_CMYK: Final = 4
_COEFFICIENT: Final = 2  # of a JPEG that is not decoded row by row
_GIF: Final = 5  # an index, and RGB
_WEBP: Final = 17  # two canvases, a frame, Pillow's copy, and the page that it is laid on
# By the header's bytes for a pixel: palette, grey, RGB, what has transparency; others are copied once more.
_PNG: Final = {1: 5, 2: 8, 3: 4, 4: 8}
_PNG_OTHERS: Final = 12


def peak_bytes(header: Header) -> int:
    """Return the most memory that decoding and resizing *header*'s picture takes, beside its file."""
    return header.width * header.height * _bytes_per_pixel(header)


def _bytes_per_pixel(header: Header) -> int:
    components = header.bytes_per_pixel
    if header.format == "JPEG":
        coefficients = _COEFFICIENT * components if header.is_buffered else 0
        return max(coefficients, _RGB if components == _CMYK else 0) + _RGB
    if header.format == "PNG":
        return _PNG.get(components, _PNG_OTHERS)
    return _WEBP if header.format == "WEBP" else _GIF


class Budget(Protocol):
    """What bounds the memory of decoders."""

    def hold(self, size_bytes: int) -> AbstractContextManager[None]:
        """Wait until *size_bytes* may be taken, and hold them within the context."""


class MemoryBudget:
    """So many bytes for all threads. One waits for them at a time, so that no large picture is passed by."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = self._free_bytes = max_bytes
        self._turn = threading.Lock()
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, size_bytes: int) -> Iterator[None]:
        """Wait until *size_bytes* are free, and hold them; more than there are count as all."""
        size_bytes = min(size_bytes, self._max_bytes)
        with self._turn, self._changed:
            self._changed.wait_for(lambda: self._free_bytes >= size_bytes)
            self._free_bytes -= size_bytes
        try:
            yield
        finally:
            with self._changed:
                self._free_bytes += size_bytes
                self._changed.notify()
