"""Which modules are mutated, and the tests that must notice."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """One module, or the functions *only* of it, and the fast tests that guard it."""

    path: str
    tests: tuple[str, ...]
    only: frozenset[str] = frozenset()
    without: tuple[str, ...] = ()  # what measures time, or other languages


SIGNATURES = (
    "tests/contract/test_signatures.py",
    "tests/contract/test_signature_vectors.py",
    "tests/contract/test_signature_items.py",
    "tests/contract/test_signature_limits.py",
    "tests/contract/test_signature_replay.py",
    "tests/contract/test_keys.py",
    "tests/contract/test_signature_cost.py",
    "tests/contract/test_signature_properties.py",
)
TIMED_OR_SLOW = (
    "tests/contract/test_signature_cost.py::test_64_item_signatures",
    "tests/contract/test_signature_cost.py::test_one_signature_for_64_items",
    "tests/contract/test_signature_vectors.py::test_node_agrees",
    "tests/contract/test_signature_vectors.py::test_node_notices_a_wrong_vector",
)
IMAGE_CHECKS = frozenset({"_check", "_check_pixels", "_mega", "_ceil"})

TARGETS = (
    Target(
        "embedding/intake/addresses.py",
        ("tests/intake/test_addresses.py", "tests/intake/test_address_tables.py"),
    ),
    Target("embedding/intake/urls.py", ("tests/intake/test_urls.py", "tests/intake/test_url_alphabets.py")),
    Target("embedding/intake/limits.py", ("tests/intake/test_limits.py",)),
    Target(
        "embedding/intake/base64_image.py",
        ("tests/intake/test_base64_image.py", "tests/intake/test_data_uri.py"),
    ),
    Target("embedding/intake/image.py", ("tests/intake/test_limits.py",), only=IMAGE_CHECKS),
    Target("embedding/cache.py", ("tests/cache/test_cache.py",)),
    Target(
        "embedding/cached_pipeline.py",
        ("tests/cache/test_hits.py", "tests/cache/test_at_once.py", "tests/cache/test_authorization.py"),
    ),
    Target("embedding/contract/keys.py", SIGNATURES, without=TIMED_OR_SLOW),
    Target("embedding/contract/canonical.py", SIGNATURES, without=TIMED_OR_SLOW),
    Target("embedding/contract/signatures.py", SIGNATURES, without=TIMED_OR_SLOW),
    Target("embedding/contract/tokens.py", ("tests/contract/test_tokens.py",)),
    Target("embedding/serve/access.py", ("tests/serve/test_access.py", "tests/serve/test_start.py")),
    Target("embedding/serve/http/gate.py", ("tests/serve/http/test_gate.py", "tests/test_bounds.py")),
    Target("embedding/operator/access.py", ("tests/operator/test_access.py",)),
    Target("embedding/operator/files.py", ("tests/operator/test_files.py",)),
    Target("embedding/contract/operator.py", ("tests/contract/test_operator_requests.py",)),
    Target(
        "embedding/contract/fields.py",
        ("tests/contract/test_request_limits.py", "tests/contract/test_request_schemas.py"),
    ),
    Target("embedding/contract/encoding.py", ("tests/contract/test_encoding.py",)),
    Target(
        "embedding/contract/requests.py",
        (
            "tests/contract/test_requests.py",
            "tests/contract/test_request_limits.py",
            "tests/contract/test_request_schemas.py",
        ),
    ),
    Target(
        "embedding/contract/responses.py",
        ("tests/contract/test_responses.py", "tests/contract/test_response_fields.py"),
    ),
)
