"""The items that jobs are made of: pictures and texts, good and bad in every way, each with its outcome."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

from PIL import Image

from bench.inputs import TEXTS, encoded, picture
from embedding.contract.canonical import Signable
from tests.chaos.images import DRIPPING, FAILING_PLANS, GOOD_PLANS
from tests.chaos.outcomes import INFERENCE_ERROR, Bad, Good, Outcome
from tests.chaos.worker import MARKED_TEXT
from tests.intake.hostile import RGB, png, scan_bomb


if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from tests.chaos.images import ImageServer

FORMS = ("JPEG", "PNG", "WEBP", "GIF")
PICTURES = 24
DRIPS = 0.05  # of the URLs that fail: each costs its job the whole time of a download
MANY_WORDS = "one word after another " * 30
REFUSED_URLS = (
    "http://169.254.169.254/latest/meta-data/",
    "http://[::ffff:10.0.0.1]/x.png",
    "http://127.0.0.2/x.png",
    "http://private.example/x.png",
    "http://mixed.example/x.png",
    "http://user:password@pictures.example/x.png",
    "http://pictures.example:22/x.png",
    "file:///etc/passwd",
)


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to embed: its fields, what becomes of it, and what a signature of its own would cover."""

    fields: Any
    outcome: Outcome
    signable: Signable | None = None


def make_pictures() -> dict[str, bytes]:
    """Return picture files of all formats by name, the same each time."""
    return {
        f"{number}.{FORMS[number % len(FORMS)].lower()}": encoded(
            picture((96, 72), number), FORMS[number % len(FORMS)]
        )
        for number in range(PICTURES)
    }


class Items:
    """Draws items; *rng* decides which, *server* serves those that are URLs."""

    def __init__(self, rng: random.Random, pictures: dict[str, bytes], server: ImageServer) -> None:
        self._random = rng
        self._pictures = pictures
        self._server = server
        self._numbers = count()
        self._bad_fields = list(_bad_fields())

    def good(self) -> Item:
        """Return a picture or a text that can be embedded."""
        return self._random.choice((self.image, self.image, self.good_url, self.text))()

    def bad(self) -> Item:
        """Return an item that cannot be embedded."""
        if self._random.random() < 0.5:
            return self.failing_url()
        fields, outcome = self._random.choice(self._bad_fields)
        return Item(fields, outcome)

    def image(self) -> Item:
        """Return a picture in base64."""
        name, file = self._random.choice(list(self._pictures.items()))
        prefix = self._random.choice(("", "data:image/png;base64,"))
        return Item({"image_base64": prefix + _base64(file)}, Good(name), Signable(image_bytes=file))

    def text(self) -> Item:
        """Return a text."""
        text = self._random.choice(TEXTS)
        return Item({"text": text}, Good(text), Signable(text=text))

    def good_url(self) -> Item:
        """Return a URL whose picture comes, at the second try at the latest."""
        name = self._random.choice(list(self._pictures))
        url = self._server.url(self._random.choice(GOOD_PLANS), next(self._numbers), name)
        return Item({"image_url": url}, Good(name), Signable(image_url=url))

    def failing_url(self) -> Item:
        """Return a URL that is refused or whose picture never comes."""
        draw = self._random.random()
        if draw < 0.2:
            return Item({"image_url": self._random.choice(REFUSED_URLS)}, Bad("URL_REFUSED"))
        if draw < 0.3:
            return Item({"image_url": "http://nowhere.example/x.png"}, Bad("DOWNLOAD_ERROR"))
        plans = [plan for plan in FAILING_PLANS if plan != DRIPPING]
        plan = DRIPPING if self._random.random() < DRIPS else self._random.choice(plans)
        name = self._random.choice(list(self._pictures))
        return Item({"image_url": self._server.url(plan, next(self._numbers), name)}, FAILING_PLANS[plan])


def _bad_fields() -> Iterator[tuple[Any, Outcome]]:
    """Yield what needs no server to be refused, with what is said of it."""
    file = encoded(picture((96, 72), 0), "PNG")
    yield {"image_base64": "@@@@"}, Bad("INVALID_INPUT")
    yield {"image_base64": "data:text/plain,hello"}, Bad("INVALID_INPUT")
    yield {"text": 5}, Bad("INVALID_INPUT")
    yield {"text": "x", "image_base64": _base64(file)}, Bad("INVALID_INPUT")
    yield {"txt": "x"}, Bad("INVALID_INPUT")
    yield {}, Bad("INVALID_INPUT")
    yield "a text", Bad("INVALID_INPUT")
    yield None, Bad("INVALID_INPUT")
    yield {"text": MANY_WORDS, "truncate": False}, Bad("TEXT_TOO_LONG")
    yield {"image_base64": _base64(b"not an image at all")}, Bad("DECODE_ERROR")
    yield {"image_base64": _base64(file[: len(file) // 2])}, Bad("DECODE_ERROR")
    yield {"image_base64": _base64(png(30_000, 30_000, RGB, b""))}, Bad("IMAGE_TOO_LARGE")
    yield {"image_base64": _base64(png(20_000, 1, RGB, b""))}, Bad("IMAGE_TOO_LARGE")
    yield {"image_base64": _base64(scan_bomb(64, 64, scans=101))}, Bad("IMAGE_TOO_LARGE")
    yield {"image_base64": _base64(encoded(Image.new("RGB", (96, 72)), "PNG"))}, INFERENCE_ERROR
    yield {"text": MARKED_TEXT}, INFERENCE_ERROR


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
