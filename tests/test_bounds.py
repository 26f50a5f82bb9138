"""No bound on strangers' work is untested: each has its value here, and a test at its edges."""

from __future__ import annotations

import ast
import importlib
import struct
from pathlib import Path

import pytest

from embedding.errors import StartupError
from embedding.intake.headers import read_header, webp
from embedding.intake.preprocess import Preprocess
from embedding.serve.loop import _number
from tests.intake import hostile


ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests"

# For each bound its value and the test that is one below it, at it, and one above it.
BOUNDS = {
    "client.bulk.rows.MAX_PICTURE_BYTES": (512 << 20, "bulk/test_odd_files.py::test_size_of_a_picture"),
    "client.bulk.rows.MAX_TEXT_CHARS": (10_000_000, "bulk/test_odd_files.py::test_length_of_a_line"),
    "client.search.command.MAX_TOP": (1000, "client/search/test_command.py::test_how_many"),
    "client.search.pictures.MAX_PIXELS": (
        50_000_000,
        "client/search/test_pictures.py::test_pixels_of_a_picture",
    ),
    "contract.canonical.MAX_VALUES": (
        20_000,
        "contract/test_signature_limits.py::test_the_number_of_values_is_bounded",
    ),
    "contract.canonical.MAX_DEPTH": (32, "contract/test_signature_limits.py::test_the_depth_is_bounded"),
    "contract.keys.MIN_SECRET_BYTES": (32, "contract/test_keys.py::test_a_secret_has_32_bytes_or_more"),
    "contract.fields.MAX_REQUEST_ID_CHARS": (128, "contract/test_request_limits.py::test_at_most"),
    "contract.operator.MAX_PATH_CHARS": (4096, "contract/test_operator_requests.py::test_beyond_limits"),
    "contract.operator.MAX_ENTRIES": (1000, "contract/test_operator_requests.py::test_beyond_limits"),
    "contract.operator.MAX_OFFSET": (1_000_000, "contract/test_operator_requests.py::test_beyond_limits"),
    "contract.operator.MAX_MODELS": (16, "contract/test_operator_requests.py::test_how_many"),
    "contract.operator.MAX_NAME_CHARS": (96, "contract/test_operator_requests.py::test_how_long"),
    "contract.requests.MAX_URL_CHARS": (2048, "contract/test_request_limits.py::test_at_most"),
    "contract.requests.MAX_TEXT_CHARS": (100_000, "contract/test_request_limits.py::test_at_most"),
    "contract.requests.MAX_FIELDS": (64, "contract/test_request_limits.py::test_fields"),
    "contract.requests.MAX_ERRORS_TOLD": (3, "contract/test_request_limits.py::test_faults_told"),
    "contract.requests.MAX_FIELD_NAME_CHARS": (
        40,
        "contract/test_request_limits.py::test_name_of_a_strangers_field",
    ),
    "contract.signatures.MAX_LIFETIME_S": (3600, "contract/test_signature_limits.py::test_lifetime"),
    "contract.signatures.MAX_NONCES": (
        65_536,
        "contract/test_signature_replay.py::test_as_many_nonces_as_fit",
    ),
    "contract.signatures.MAX_TIMESTAMP_S": (
        2**53 - 1,
        "contract/test_signature_limits.py::test_time_ends_where_json_loses_exactness",
    ),
    "contract.tokens.MIN_TOKEN_BYTES": (32, "contract/test_tokens.py::test_a_token_has_32_bytes_or_more"),
    "contract.tokens.MAX_TOKENS": (16, "contract/test_tokens.py::test_as_many_as_are_compared"),
    "intake.headers.gif.MAX_BLOCKS": (20_000, "intake/test_headers.py::test_gif_blocks_end_at_the_limit"),
    "intake.headers.jpeg.MAX_SEGMENTS": (1000, "intake/test_headers.py::test_jpeg_segments_end_at_the_limit"),
    "intake.headers.png.MAX_CHUNKS": (20_000, "intake/test_headers.py::test_png_chunks_end_at_the_limit"),
    "intake.headers.webp.MAX_CHUNKS": (20_000, "test_bounds.py::test_webp_chunks"),
    "intake.preprocess.MAX_SIZE": (4096, "test_bounds.py::test_image_size"),
    "intake.urls._MAX_NAME_LENGTH": (253, "intake/test_url_alphabets.py::test_length_of_a_name"),
    "model.engine.MAX_FORWARD_S": (90.0, "model/test_engine.py::test_forward_that_does_not_return_shows"),
    "model.engine.MAX_WAITING_ITEMS": (1024, "model/test_engine.py::test_refuses_one_more_than_fits"),
    "operator.files.MAX_SCANNED": (100_000, "operator/test_files.py::test_entries_that_are_read"),
    "operator.gpu.MAX_OUTPUT_BYTES": (65_536, "operator/test_gpu.py::test_length"),
    "serve.http.bodies.MAX_JSON_MARKS": (1_000_000, "serve/http/test_bodies.py::test_marks_of_json"),
    "serve.http.forms.MAX_FILES": (4096, "serve/http/test_bodies.py::test_files_of_a_form"),
    "serve.http.forms.MAX_AUTH_CHARS": (4096, "serve/http/test_bodies.py::test_auth_of_a_form"),
    "serve.http.gate.MAX_HELD_BYTES": (256 << 20, "serve/http/test_gate.py::test_bytes_of_all"),
    "serve.loop.MAX_TAKEN_BYTES": (128 << 20, "serve/test_loop.py::test_jobs_that_fit"),
    "serve.loop.MAX_INT_DIGITS": (4300, "test_bounds.py::test_digits"),
}
# What divides our own work, or reckons how much an answer may take, and refuses nobody.
OUR_OWN = {
    "local.MAX_REQUEST_BYTES",
    "contract.encoding.MAX_FLOAT_CHARS",
    "contract.responses.MAX_BYTES_BESIDE_VECTOR",
    "intake.tensor_resize.MAX_ASPECT",
    "model.cuda.MIN_COSINE",
    "model.engine.MAX_FORWARD_ITEMS",
    "model.engine.MAX_LANE_THREAD_ITEMS",
    "model.placing.MAX_THREADS",
    "pipeline.MAX_DECODE_THREADS",
    "pipeline.MAX_JOB_DOWNLOADS",
}


def bounds_of_the_package() -> set[str]:
    """Every module constant of the package whose name says that it is a bound."""
    found = set()
    for path in (ROOT / "embedding").rglob("*.py"):
        module = ".".join(path.relative_to(ROOT / "embedding").with_suffix("").parts)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            names = [target.id for target in targets if isinstance(target, ast.Name)]
            found |= {f"{module}.{name}" for name in names if name.lstrip("_").startswith(("MAX_", "MIN_"))}
    return found


def test_every_bound_has_its_row():
    """A bound that is added needs a test at its edges; one that is dropped leaves the table."""
    assert bounds_of_the_package() == set(BOUNDS) | OUR_OWN


@pytest.mark.parametrize("name", BOUNDS)
def test_the_row_is_true(name):
    """The bound has the value that is stated, and the test that is named exists."""
    value, test = BOUNDS[name]
    module, constant = name.rsplit(".", 1)
    path, function = test.split("::")
    tree = ast.parse((TESTS / path).read_text(encoding="utf-8"))

    assert getattr(importlib.import_module(f"embedding.{module}"), constant) == value
    assert function in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(("chunks", "turned"), [(19_999, 6), (20_000, 6), (20_001, 1)])
def test_webp_chunks(chunks, turned):
    """Orientation is looked for in so many chunks, and is upright if it comes later."""
    first = struct.pack("<4sIB3xHBHB", b"VP8X", 10, 8, 7, 0, 7, 0)
    exif = hostile.exif(6)
    last = struct.pack("<4sI", b"EXIF", len(exif)) + exif
    body = b"WEBP" + first + struct.pack("<4sI", b"JUNK", 0) * (chunks - 2) + last

    assert read_header(b"RIFF" + struct.pack("<I", len(body)) + body).orientation == turned
    assert webp.MAX_CHUNKS == 20_000


@pytest.mark.parametrize(
    ("size", "allowed"), [(0, False), (1, True), (2, True), (4095, True), (4096, True), (4097, False)]
)
def test_image_size(size, allowed):
    """A model's square is 1 to 4096 pixels wide."""
    if allowed:
        assert Preprocess(size=size).size == size
    else:
        with pytest.raises(StartupError, match=f"preprocess size is {size}; it must be 1 to 4096"):
            Preprocess(size=size)


@pytest.mark.parametrize(("digits", "kind"), [(4299, int), (4300, int), (4301, float)])
def test_digits(digits, kind):
    """A number of as many digits as Python reads is exact; a longer one becomes infinite."""
    assert type(_number("9" * digits)) is kind
