"""Infinity, the embedding server most used for CLIP, on the weights and pictures that our worker is given.

    python -m bench.infinity FOLDER [--dtype D] [--callers N] [--seconds S]

It runs as its documentation says for a CPU, in a virtual environment of its own that is made once, with
versions that work together (`infinity-requirements.txt`). Callers speak to it as clients do: one
data URI of a JPEG in each request, over loopback HTTP, the next one when the answer has come. Telemetry is
off and no hub is asked.

On a CPU its CLIP models run in fp32 whatever `--dtype` says of 16 bits (transformer/vision/torch_vision.py
applies those on CUDA only). `int8` quantises its linear layers and is faster, but its vectors miss the
bound that every answer is held to, so fp32 is its strongest choice that counts.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

from bench import http_server
from bench.http_client import HOST, ask, post
from bench.http_server import free_port
from bench.inputs import jpegs as vga_jpegs
from bench.model import CACHE, check_vector, references, run_python


if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.http_client import Load
    from bench.model import Vectors

REQUIREMENTS: Final = Path(__file__).with_name("infinity-requirements.txt")
ENVIRONMENT: Final = CACHE / "infinity-venv"
BATCH: Final = 32
DTYPES: Final = ("auto", "float32", "bfloat16", "int8")
INSTALL_S: Final = 1800.0
WARM_UP_S: Final = 5.0
_TAIL_CHARS: Final = 2000
_MODEL: Final = "clip"


def measure(
    folder: Path, jpegs: Sequence[bytes], *, callers: int, duration_s: float, dtype: str = "auto"
) -> float:
    """Return the images a second that *callers*, each with one request open, get of the model of *folder*.

    Raises WrongAnswer if an answer is not open_clip's vector, RuntimeError if the server fails.
    """
    expected = references(folder, jpegs, _say)
    with serving(folder, dtype=dtype) as infinity:
        return infinity.images_per_s(jpegs, expected, callers=callers, duration_s=duration_s)


@dataclass(frozen=True, slots=True)
class Infinity:
    """A running server. Each measurement warms up first and checks an answer for each picture."""

    port: int

    def images_per_s(
        self, jpegs: Sequence[bytes], expected: Vectors, *, callers: int, duration_s: float
    ) -> float:
        """Return the images a second that *callers* get in *duration_s*."""
        return self._load(jpegs, expected, callers, duration_s).per_s(duration_s)

    def p50_ms(self, jpegs: Sequence[bytes], expected: Vectors, *, duration_s: float) -> float:
        """Return the median milliseconds that one caller waits for an answer."""
        return median(answer.took_ms for answer in self._load(jpegs, expected, 1, duration_s).answers)

    def _load(self, jpegs: Sequence[bytes], expected: Vectors, callers: int, duration_s: float) -> Load:
        requests = [post("/embeddings", _body(jpeg)) for jpeg in jpegs]
        ask(self.port, requests, callers=callers, duration_s=WARM_UP_S)
        load = ask(self.port, requests, callers=callers, duration_s=duration_s)
        for answer in {answer.request: answer for answer in load.answers}.values():
            embedding = json.loads(answer.raw)["data"][0]["embedding"]
            check_vector(embedding, answer.request, expected)
        return load


@contextmanager
def serving(folder: Path, *, dtype: str = "auto") -> Iterator[Infinity]:
    """Run Infinity on the model of *folder* until the block ends; the block begins when it is ready."""
    python, exported, port = environment(), _exported(folder), free_port()
    with http_server.serving(
        _command(python, exported, port, dtype), _variables(), port=port, ready="/health"
    ) as server:
        yield Infinity(server.port)


def environment() -> Path:
    """Return the Python of Infinity's environment, which is made if its requirements are not those it has."""
    python, made_of = ENVIRONMENT / "bin" / "python", ENVIRONMENT / "requirements.sha256"
    digest = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    if made_of.exists() and made_of.read_text(encoding="utf-8") == digest:
        return python
    shutil.rmtree(ENVIRONMENT, ignore_errors=True)
    uv = shutil.which("uv")
    if uv:
        _install(uv, "venv", "--quiet", "--python", sys.executable, str(ENVIRONMENT))
        _install(uv, "pip", "install", "--quiet", "--python", str(python), "-r", str(REQUIREMENTS))
    else:
        _install(sys.executable, "-m", "venv", str(ENVIRONMENT))
        _install(str(python), "-m", "pip", "install", "--quiet", "-r", str(REQUIREMENTS))
    made_of.write_text(digest, encoding="utf-8")
    return python


def _install(*command: str) -> None:
    done = subprocess.run(  # noqa: S603  uv or pip with arguments of this module
        command, capture_output=True, text=True, timeout=INSTALL_S, check=False
    )
    if done.returncode:
        raise RuntimeError(f"Infinity's environment cannot be made: {done.stderr[-_TAIL_CHARS:]}")


def _exported(folder: Path) -> Path:
    """Return the folder of the same model in transformers' format, made once for each state of *folder*."""
    made_of = hashlib.sha256(str(folder.resolve()).encode())
    for file in sorted(folder.iterdir()):
        made_of.update(f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}".encode())
    out = CACHE / f"transformers-{made_of.hexdigest()[:16]}"
    if not (out / "config.json").exists():  # what is written last
        run_python("-m", "bench.hf_export", str(folder), str(out))
    return out


def _command(python: Path, exported: Path, port: int, dtype: str) -> list[str]:
    return [
        *(str(python.with_name("infinity_emb")), "v2"),
        *("--model-id", str(exported), "--served-model-name", _MODEL, "--host", HOST, "--port", str(port)),
        *("--device", "cpu", "--dtype", dtype, "--batch-size", str(BATCH)),
        *("--no-bettertransformer", "--no-compile"),
    ]


def _variables() -> dict[str, str]:
    """Return the server's whole environment: nothing of ours, such as thread counts, reaches it."""
    return {
        "PATH": os.defpath,
        "HOME": str(ENVIRONMENT),
        "DO_NOT_TRACK": "1",
        "INFINITY_ANONYMOUS_USAGE_STATS": "0",
        "HF_HUB_OFFLINE": "1",
    }


def _body(jpeg: bytes) -> bytes:
    uri = f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
    return json.dumps({"model": _MODEL, "modality": "image", "input": uri}).encode()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.infinity", description=__doc__)
    parser.add_argument("folder", type=Path, help="a folder in open_clip's hub format")
    parser.add_argument("--dtype", choices=DTYPES, default="auto", help="what Infinity is told (auto)")
    parser.add_argument("--callers", type=int, default=64, help="how many requests are open (64)")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long to measure (20)")
    options = parser.parse_args()
    files = vga_jpegs()
    expected = references(options.folder, files, _say)
    with serving(options.folder, dtype=options.dtype) as infinity:
        p50_ms = infinity.p50_ms(files, expected, duration_s=options.seconds)
        images_per_s = infinity.images_per_s(
            files, expected, callers=options.callers, duration_s=options.seconds
        )
    print(
        f"{options.callers} callers: {images_per_s:.1f} images/s; one caller: {p50_ms:.1f} ms at the median"
    )


if __name__ == "__main__":
    _main()
