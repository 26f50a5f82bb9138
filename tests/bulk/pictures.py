"""Small pictures, each unlike any other, in a folder or a tar of samples as WebDataset writes them."""

from __future__ import annotations

import io
import random
import tarfile
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw


if TYPE_CHECKING:
    from pathlib import Path

SIDE = 96


def picture(number, side=SIDE):
    """Return picture *number* as PNG or, every third, as JPEG."""
    rng = random.Random(number)
    image = Image.new("RGB", (side, side), tuple(rng.randrange(256) for _ in range(3)))
    drawing = ImageDraw.Draw(image)
    for _ in range(3):
        left, top = rng.randrange(side - 20), rng.randrange(side - 20)
        box = (left, top, left + rng.randrange(8, 60), top + rng.randrange(8, 60))
        colour = tuple(rng.randrange(256) for _ in range(3))
        (drawing.ellipse if rng.random() < 0.5 else drawing.rectangle)(box, fill=colour)
    file = io.BytesIO()
    image.save(file, "JPEG" if number % 3 == 0 else "PNG", compress_level=1)
    return file.getvalue()


def name(number):
    """Return the file name of picture *number*; the order of names is that of numbers."""
    return f"{number:06}.{'jpg' if number % 3 == 0 else 'png'}"


def fill_folder(folder: Path, numbers):
    """Write pictures into folders of a thousand each; return *folder*."""
    for number in numbers:
        path = folder / f"{number // 1000:03}" / name(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
    return folder


def fill_tar(path: Path, numbers):
    """Write samples of a picture, a caption and a JSON file each; return *path*."""
    with tarfile.open(path, "w") as archive:
        for number in numbers:
            stem, suffix = name(number).split(".")
            for member, data in (
                (f"{stem}.json", b"{}"),
                (f"{stem}.{suffix}", picture(number)),
                (f"{stem}.txt", f"picture {number}".encode()),
            ):
                header = tarfile.TarInfo(member)
                header.size = len(data)
                archive.addfile(header, io.BytesIO(data))
    return path
