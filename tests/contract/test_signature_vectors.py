"""The published vectors are what this package signs and accepts, and what other languages compute."""

from __future__ import annotations

import base64
import copy
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from embedding.contract.canonical import Signable, canonical_json
from embedding.contract.keys import Key, Keyring
from embedding.contract.signatures import sign_v2, sign_v3
from tests.contract.signing import accepts_item, accepts_job, mac, verifier


HERE = Path(__file__).parent
VECTORS = json.loads((HERE / "signature_vectors.json").read_text(encoding="utf-8"))
RING = Keyring(tuple(Key(kid, secret.encode()) for kid, secret in VECTORS["secrets"].items()))
NODE = shutil.which("node")


def vector_item(vector: dict) -> Signable:
    """What a v1 or v2 vector was signed for."""
    encoded = vector.get("image_base64")
    return Signable(
        image_url=vector.get("image_url"),
        image_bytes=None if encoded is None else base64.b64decode(encoded),
        text=vector.get("text"),
        in_batch=vector.get("in_batch", False),
    )


def vectors_of(section: str):
    """One test a vector, named as the vector is."""
    return pytest.mark.parametrize("vector", VECTORS[section], ids=lambda vector: vector["name"])


def key_of(kid: str) -> Key:
    """The published key of this kid."""
    return next(key for key in RING.keys if key.kid == kid)


@vectors_of("canonical")
def test_canonical(vector):
    """Values take their published canonical form."""
    assert canonical_json(vector["value"]).decode() == vector["json"]


@vectors_of("v1")
def test_v1(vector):
    """Published v1 signatures are accepted."""
    assert vector["auth"]["sig"] == mac(key_of(vector["kid"]).secret, vector["message"])
    assert accepts_item(vector["auth"], vector_item(vector), by=verifier(RING, now=VECTORS["now"]))


@vectors_of("v2")
def test_v2(vector):
    """Published v2 signatures are accepted, and are what sign_v2 makes."""
    auth, item = vector["auth"], vector_item(vector)

    assert sign_v2(item, key_of(vector["kid"]), now=auth["ts"]) == auth
    assert accepts_item(auth, item, by=verifier(RING, now=VECTORS["now"]))


@vectors_of("v3")
def test_v3(vector):
    """Published v3 signatures are accepted, and are what sign_v3 makes."""
    auth = vector["input"]["auth"]
    lifetime_s = auth["exp"] - auth["iat"]

    assert accepts_job(vector["input"], by=verifier(RING, now=VECTORS["now"]))
    assert auth == sign_v3(
        vector["input"],
        key_of(auth["kid"]),
        now=auth["iat"],
        lifetime_s=lifetime_s,
        nonce=auth["nonce"],
    )


@pytest.mark.skipif(NODE is None, reason="needs Node")
def test_node_agrees():
    """An implementation in Node's standard library, sharing no code, computes every vector."""
    assert checked_by_node(HERE / "signature_vectors.json") == (0, "20 vectors agree\n")


@pytest.mark.skipif(NODE is None, reason="needs Node")
@pytest.mark.parametrize(
    ("section", "field"), [("canonical", "json"), ("v1", "image_url"), ("v2", "image_url"), ("v3", "message")]
)
def test_node_notices_a_wrong_vector(section, field, tmp_path):
    """The second implementation fails when a vector is wrong, so its agreement means something."""
    wrong = copy.deepcopy(VECTORS)
    wrong[section][0][field] += "."
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(wrong), encoding="utf-8")

    assert checked_by_node(path) == (1, f"differ: {wrong[section][0]['name']}\n")


def checked_by_node(path: Path) -> tuple[int, str]:
    """Exit status and output of the second implementation for a file of vectors."""
    command = [NODE, HERE / "verify_vectors.mjs", path]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, timeout=60)
    return answer.returncode, answer.stdout
