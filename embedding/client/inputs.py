"""From what a caller has to what travels: paths, bytes, Pillow images, arrays, URLs and texts as wire items.

Pixels travel as PNG, so that none changes; files and bytes travel as they are. Pillow is needed for Pillow
images and arrays alone.
"""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from embedding.client.errors import ItemError


if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy.typing as npt
    from PIL.Image import Image

    ImageInput = str | os.PathLike[str] | bytes | Image | npt.NDArray[np.uint8]
    WireItem = dict[str, Any]

WEB: Final = ("http://", "https://")
PNG_MODES: Final = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
CHANNELS: Final = (1, 3, 4)
ENVELOPE_BYTES: Final = 64  # around one item: its braces, quotes and field name


def image_item(image: ImageInput) -> WireItem:
    """Return *image* as an item: a URL or data URI as it is, all else in base64.

    *image*: a URL, a data URI, a path, an encoded picture in bytes, a Pillow image, or an array of uint8,
    (H, W), (H, W, 1), (H, W, 3) in RGB or (H, W, 4) in RGBA. Raises TypeError or ValueError if it is none of
    these, OSError if the file cannot be read.
    """
    if isinstance(image, str) and image.startswith(WEB):
        return {"image_url": image}
    if isinstance(image, str) and image.startswith("data:"):
        return {"image_base64": image}
    return {"image_base64": base64.b64encode(_encoded(image)).decode("ascii")}


def text_item(text: str) -> WireItem:
    """Return *text* as an item. Raises TypeError if it is not a string."""
    if not isinstance(text, str):
        raise TypeError(f"a text must be a str, not {type(text).__name__}")
    return {"text": text}


def mixed_item(item: Mapping[str, Any]) -> WireItem:
    """Return `{"image": …}` or `{"text": …}` as an item. Raises TypeError or ValueError if it is neither."""
    if not isinstance(item, Mapping) or len(item) != 1 or next(iter(item)) not in ("image", "text"):
        raise TypeError('an item of a batch is {"image": …} or {"text": …}')
    return text_item(item["text"]) if "text" in item else image_item(item["image"])


def size_bytes(item: WireItem) -> int:
    """Return how many bytes of JSON *item* takes, at most."""
    text = item.get("text")
    value = len(json.dumps(text)) if text is not None else sum(len(value) for value in item.values())
    return value + ENVELOPE_BYTES


def chunks(
    items: Iterable[tuple[int, WireItem]], *, max_items: int, max_bytes: int
) -> Iterator[list[tuple[int, WireItem]]]:
    """Cut numbered *items* into jobs of at most *max_items* and *max_bytes* of JSON, in order.

    An item that is larger by itself makes a job of its own, for `too_large` to judge.
    """
    chunk: list[tuple[int, WireItem]] = []
    taken_bytes = 0
    for index, item in items:
        item_bytes = size_bytes(item)
        if chunk and (len(chunk) == max_items or taken_bytes + item_bytes > max_bytes):
            yield chunk
            chunk, taken_bytes = [], 0
        chunk.append((index, item))
        taken_bytes += item_bytes
    if chunk:
        yield chunk


def too_large(index: int, item: WireItem, *, max_bytes: int) -> ItemError | None:
    """Return the error of an *item* that no job can carry, or None."""
    item_bytes = size_bytes(item)
    if item_bytes <= max_bytes:
        return None
    return ItemError(
        index, "IMAGE_TOO_LARGE", f"{item_bytes} bytes of JSON; a request carries {max_bytes}: send its URL"
    )


def unreadable(index: int, fault: OSError) -> ItemError:
    """Return the error of an item whose file cannot be read."""
    return ItemError(index, "INVALID_INPUT", f"{fault.filename} cannot be read: {fault.strerror}")


def _encoded(image: ImageInput) -> bytes:
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | os.PathLike):
        return Path(image).read_bytes()
    if isinstance(image, np.ndarray):
        return _png(_pillow_of(image))
    if hasattr(image, "mode") and hasattr(image, "save"):
        return _png(image)
    raise TypeError(
        f"an image must be a path, bytes, a URL, a Pillow image or an array, not {type(image).__name__}"
    )


def _pillow_of(pixels: npt.NDArray[np.uint8]) -> Image:
    from PIL import Image  # noqa: PLC0415  the only need for it

    if pixels.dtype != np.uint8:
        raise ValueError(f"an image array must be uint8, 0 to 255, not {pixels.dtype}")
    if pixels.ndim == len("HWC") and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.ndim != len("HW") and not (pixels.ndim == len("HWC") and pixels.shape[2] in CHANNELS):
        raise ValueError(f"an image array must be (H, W) or (H, W, 1, 3 or 4), not {pixels.shape}")
    return Image.fromarray(np.ascontiguousarray(pixels))


def _png(image: Image) -> bytes:
    whole = image if image.mode in PNG_MODES else image.convert("RGB")
    into = io.BytesIO()
    whole.save(into, "PNG", compress_level=1)  # a tenth of the time of the default, a few per cent larger
    return into.getvalue()
