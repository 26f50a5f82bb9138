"""A batch of 64 with 32 bad items, through the real worker: the good ones never notice."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from scripts.demo_model.vocabulary import SHAPES
from tests.intake import hostile
from tests.loopback import LoopbackRunPod
from tests.serve.conftest import HANDLER, WORKER


MAX_GAP = 1e-5
PNG = hostile.encode(Image.new("RGB", (40, 30), (200, 30, 90)), "PNG")
JPEG = hostile.encode(Image.new("RGB", (40, 30), (200, 30, 90)), "JPEG")


def of(data):
    """Return an item of the picture *data*."""
    return {"image_base64": base64.b64encode(data).decode()}


BAD = {
    "INVALID_INPUT": [
        None,
        [],
        "text",
        7,
        {},
        {"text": 5},
        {"text": "x" * 100_001},
        {"text": "a", "image_base64": "QUJD"},
        {"text": "a", "txt": "b"},
        {"text": "a", "request_id": "x" * 129},
        {"text": "a", "normalize": "yes"},
        {"image_base64": ""},
        {"image_base64": "QUJ!"},
        {"image_base64": "data:text/plain;base64,QUJD"},
        {"image_url": "https://example.com/" + "x" * 2048},
    ],
    "TEXT_TOO_LONG": [{"text": "circle " * 100, "truncate": False}],
    "DECODE_ERROR": [
        of(b"plain text"),
        of(JPEG[:-2]),
        of(PNG[: len(PNG) // 2]),
        of(hostile.jpeg_with(hostile.segment(0xEF, b"") * 1001)),
        of(JPEG.replace(b"\xff\xc0", b"\xff\xc9")),
        of(hostile.encode(Image.new("RGB", (4, 4)), "BMP")),
    ],
    "IMAGE_TOO_LARGE": [
        of(hostile.flat_png(10_000, 5_001, hostile.GREY, depth=1)),
        of(hostile.flat_png(202, 2, hostile.GREY, depth=1)),
        of(hostile.scan_bomb(64, 64, scans=101)),
        of(hostile.gif((65_535, 65_535), (1, 1), b"\0\x0b\x04\x04")),
        of(hostile.riff(hostile.webp_canvas(4001, 4000))),
    ],
    "URL_REFUSED": [
        {"image_url": "https://127.0.0.1/a.png"},
        {"image_url": "https://169.254.169.254/latest"},
        {"image_url": "http://example.com/a.png"},
        {"image_url": "https://localhost/a.png"},
        {"image_url": "https://user:secret@example.com/a.png"},
    ],
}
EXPECTED = [(code, item) for code, items in BAD.items() for item in items]


def picture(number):
    """Return the item of a picture of its own, in one of four formats."""
    image = Image.fromarray(np.random.default_rng(number).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    file = io.BytesIO()
    image.resize((320, 240)).save(file, ("JPEG", "PNG", "GIF", "WEBP")[number % 4])
    return of(file.getvalue())


TEXTS = [f"a {colour} {shape}" for colour in ("red", "green", "blue", "pink") for shape in list(SHAPES)[:4]]
GOOD = [item for n, text in enumerate(TEXTS) for item in ({"text": text}, picture(n))]


@pytest.fixture(scope="module")
def answers():
    """Return the batch's results, and those of its good items each sent alone, by one worker in fp32."""
    items = [item for pair in zip(GOOD, (bad for _, bad in EXPECTED), strict=True) for item in pair]
    for place, item in enumerate(items):
        if isinstance(item, dict) and "request_id" not in item:
            items[place] = {**item, "request_id": f"item {place}"}
    with LoopbackRunPod(hold_s=1.0) as platform, platform.worker(HANDLER, env=WORKER) as worker:
        worker.wait_ready(60)
        together = platform.run_sync({"items": items})
        alone = platform.wait_all(platform.submit_many(GOOD))
        assert together.status == "COMPLETED", together
        return items, together.output, [result.output["embedding"] for result in alone]


def test_there_are_32_bad_items_of_every_kind():
    """Every code that an item can deserve without a network or a secret is among them, several ways each."""
    assert len(EXPECTED) == 32


def test_every_bad_item_has_its_code_in_its_place(answers):
    """32 codes, in order, and none of them costs the job."""
    _, output, _ = answers

    assert [result["error"]["code"] for result in output["results"][1::2]] == [code for code, _ in EXPECTED]
    assert (len(output["results"]), output["errors"]) == (64, 32)


def test_every_good_item_has_the_vector_that_it_has_alone(answers):
    """32 vectors, in order, each within 1e-5 of the one of a job of its own."""
    _, output, alone = answers
    vectors = np.array([result["embedding"] for result in output["results"][::2]])

    assert np.abs(vectors - np.array(alone)).max() <= MAX_GAP
    assert len(np.unique(vectors.round(4), axis=0)) == 32


def test_every_result_has_its_items_request_id(answers):
    """Where an id was given and can be echoed it is, whatever became of the item."""
    items, output, _ = answers
    given = [item.get("request_id") if isinstance(item, dict) else None for item in items]
    expected = [name if name and len(name) <= 128 else None for name in given]

    assert [result.get("request_id") for result in output["results"]] == expected
