"""From what a caller has to what travels: paths, bytes, Pillow images, arrays, URLs and texts as wire items.

Pixels travel as PNG, so that none changes, and with the orientation that their file had: the worker sees in a
Pillow image what it would see in its file. Files and bytes travel as they are.
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
    from collections.abc import Callable, Iterable, Iterator

    import numpy.typing as npt
    from PIL.Image import Image

    ImageInput = str | os.PathLike[str] | bytes | Image | npt.NDArray[np.uint8]
    WireItem = dict[str, Any]

WEB: Final = ("http://", "https://")
# Pillow's modes that PNG carries as they are, those that lose nothing by becoming another, and the 16 bits
# of other byte orders. All others become RGB as the worker itself would make them.
PNG_MODES: Final = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
EQUAL_MODES: Final = {"PA": "RGBA", "La": "LA", "RGBa": "RGBA"}
OTHER_16_BITS: Final = frozenset({"I;16B", "I;16L", "I;16N"})
WITHOUT_WHITE: Final = frozenset({"I", "F"})
CHANNELS: Final = (1, 3, 4)
ENVELOPE_BYTES: Final = 64  # around one item: its braces, quotes and field name
TOLD_PATH_CHARS: Final = 200
DAMAGED: Final = (
    ArithmeticError,
    EOFError,
    LookupError,
    SyntaxError,
    ValueError,
)  # what Pillow's readers raise


def is_web(value: str) -> bool:
    """Return whether *value* is an http or https URL."""
    return value[: len("https://")].lower().startswith(WEB)


def image_item(image: ImageInput) -> WireItem:
    """Return *image* as an item: a URL or data URI as it is, all else in base64.

    *image*: a URL, a data URI, a path, an encoded picture in bytes, a Pillow image, or an array of uint8,
    (H, W), (H, W, 1), (H, W, 3) in RGB or (H, W, 4) in RGBA. Raises TypeError or ValueError if it is none of
    these, OSError if the file cannot be read.
    """
    if isinstance(image, str) and is_web(image):
        return {"image_url": _unicode(image, "a URL")}
    if isinstance(image, str) and image[: len("data:")].lower() == "data:":
        return {"image_base64": _unicode(image, "a data URI")}
    return {"image_base64": base64.b64encode(_encoded(image)).decode("ascii")}


def text_item(text: str) -> WireItem:
    """Return *text* as an item. Raises TypeError if it is not a string, ValueError if it is not Unicode."""
    if not isinstance(text, str):
        raise TypeError(f"a text must be a str, not {type(text).__name__}")
    return {"text": _unicode(text, "a text")}


def mixed_item(item: Mapping[str, Any]) -> WireItem:
    """Return `{"image": …}` or `{"text": …}` as an item. Raises TypeError or ValueError if it is neither."""
    if not isinstance(item, Mapping) or len(item) != 1 or next(iter(item)) not in ("image", "text"):
        raise TypeError('an item of a batch is {"image": …} or {"text": …}')
    return text_item(item["text"]) if "text" in item else image_item(item["image"])


def size_bytes(item: WireItem) -> int:
    """Return how many bytes of JSON *item* takes, at most."""
    if picture := item.get("image_base64"):
        return ENVELOPE_BYTES + len(picture)
    return ENVELOPE_BYTES + sum(len(json.dumps(value)) for value in item.values())


def chunks(
    items: Iterable[tuple[int, WireItem]], *, max_items: Callable[[], int], max_bytes: int
) -> Iterator[tuple[list[tuple[int, WireItem]], bool]]:
    """Cut numbered *items* into jobs of at most *max_items* and *max_bytes* of JSON, in order.

    Beside each job stands whether it is known to be the last. *max_items* is asked anew for each item, since
    a worker may say that it takes fewer. An item that is larger by itself makes a job of its own, for
    `too_large` to judge.
    """
    chunk: list[tuple[int, WireItem]] = []
    taken_bytes = 0
    for index, item in items:
        item_bytes = size_bytes(item)
        if chunk and (len(chunk) >= max_items() or taken_bytes + item_bytes > max_bytes):
            yield chunk, False
            chunk, taken_bytes = [], 0
        chunk.append((index, item))
        taken_bytes += item_bytes
    if chunk:
        yield chunk, True


def too_large(index: int, item: WireItem, *, max_bytes: int) -> ItemError | None:
    """Return the error of an *item* that no job can carry, or None."""
    item_bytes = size_bytes(item)
    if item_bytes <= max_bytes:
        return None
    told = f"{item_bytes} bytes of JSON; a request carries {max_bytes}"
    if "text" in item:
        return ItemError(index, "INVALID_INPUT", f"the text takes {told}")
    return ItemError(index, "IMAGE_TOO_LARGE", f"the image takes {told}: send its URL, or a smaller one")


def unreadable(index: int, fault: OSError) -> ItemError:
    """Return the error of an item whose file, or whose Pillow image's file, cannot be read."""
    name = str(fault.filename)[:TOLD_PATH_CHARS] if fault.filename else "the image"
    name = name.encode(errors="backslashreplace").decode()  # a name in bytes that are no Unicode
    return ItemError(index, "INVALID_INPUT", f"{name} cannot be read: {fault.strerror or fault}")


def _unicode(text: str, what: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{what} must be valid Unicode; this one holds half a surrogate pair") from None
    return text


def _encoded(image: ImageInput) -> bytes:
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | os.PathLike):
        return Path(image).read_bytes()
    if isinstance(image, np.ndarray):
        return _png(_pillow_of(image))
    if hasattr(image, "mode") and hasattr(image, "save"):
        return _png(image)
    kind = type(image).__name__
    raise TypeError(f"an image must be a path, bytes, a URL, a Pillow image or an array, not {kind}")


def _pillow_of(pixels: npt.NDArray[np.uint8]) -> Image:
    from PIL import Image  # noqa: PLC0415  Pillow takes a tenth of a second, and not everybody has arrays

    if pixels.dtype != np.uint8:
        raise ValueError(f"an image array must be uint8, 0 to 255, not {pixels.dtype}{_advice(pixels)}")
    if pixels.ndim == len("HWC") and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    is_picture = pixels.ndim == len("HW") or (pixels.ndim == len("HWC") and pixels.shape[2] in CHANNELS)
    if not is_picture or not pixels.size:
        raise ValueError(f"an image array must be (H, W) or (H, W, 1, 3 or 4), not {pixels.shape}")
    return Image.fromarray(np.ascontiguousarray(pixels))


def _advice(pixels: npt.NDArray[Any]) -> str:
    is_float = np.issubdtype(pixels.dtype, np.floating)
    return "; of 0.0 to 1.0 make it by (255 * image).round().astype('uint8')" if is_float else ""


def _png(image: Image) -> bytes:
    try:
        image.load()
    except DAMAGED as fault:
        raise OSError(str(fault)) from fault
    into = io.BytesIO()
    exif = image.info.get("exif")
    options = {"exif": exif} if isinstance(exif, bytes) else {}
    # Level 1 takes a tenth of the default's time, and makes a file a few per cent larger.
    _png_mode(image).save(into, "PNG", compress_level=1, icc_profile=None, **options)
    return into.getvalue()


def _png_mode(image: Image) -> Image:
    if image.mode in PNG_MODES:
        return image
    if image.mode in OTHER_16_BITS:
        return image.convert("I").convert("I;16")
    if image.mode in WITHOUT_WHITE:
        raise ValueError(f"a Pillow image of mode {image.mode} does not say which value is white; make it L")
    return image.convert(EQUAL_MODES.get(image.mode, "RGB"))
