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
import asyncio
import base64
import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

import aiohttp

from bench.figures import rate
from bench.inputs import jpegs as vga_jpegs
from bench.model import CACHE, WrongAnswer, check_vector, references, run_python


if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.model import Vectors

REQUIREMENTS: Final = Path(__file__).with_name("infinity-requirements.txt")
ENVIRONMENT: Final = CACHE / "infinity-venv"
BATCH: Final = 32
DTYPES: Final = ("auto", "float32", "bfloat16", "int8")
INSTALL_S: Final = 1800.0
READY_S: Final = 120.0
STOP_S: Final = 10.0
WARM_UP_S: Final = 5.0
REQUEST_S: Final = 60.0
_TAIL_CHARS: Final = 2000
_OK: Final = 200
_HOST: Final = "127.0.0.1"
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
class _Answer:
    started_s: float
    ended_s: float
    picture: int
    raw: bytes


@dataclass(frozen=True, slots=True)
class Infinity:
    """A running server. Each measurement warms up first and checks an answer for each picture."""

    port: int

    def images_per_s(
        self, jpegs: Sequence[bytes], expected: Vectors, *, callers: int, duration_s: float
    ) -> float:
        """Return the images a second that *callers* get in *duration_s*."""
        return rate([answer.ended_s for answer in self._load(jpegs, expected, callers, duration_s)])

    def p50_ms(self, jpegs: Sequence[bytes], expected: Vectors, *, duration_s: float) -> float:
        """Return the median milliseconds that one caller waits for an answer."""
        answers = self._load(jpegs, expected, 1, duration_s)
        return median((answer.ended_s - answer.started_s) * 1e3 for answer in answers)

    def _load(
        self, jpegs: Sequence[bytes], expected: Vectors, callers: int, duration_s: float
    ) -> list[_Answer]:
        bodies = [_body(jpeg) for jpeg in jpegs]
        warm_s = time.perf_counter() + WARM_UP_S
        end_s = warm_s + duration_s
        answers = asyncio.run(_drive(self.port, bodies, callers, end_s))
        for answer in {answer.picture: answer for answer in answers}.values():
            embedding = json.loads(answer.raw)["data"][0]["embedding"]
            check_vector(embedding, answer.picture, expected)
        return [answer for answer in answers if warm_s <= answer.ended_s <= end_s]


@contextmanager
def serving(folder: Path, *, dtype: str = "auto") -> Iterator[Infinity]:
    """Run Infinity on the model of *folder* until the block ends; the block begins when it is ready."""
    python, exported, port = environment(), _exported(folder), _free_port()
    command = _command(python, exported, port, dtype)
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(  # noqa: S603  the environment made here
            command, stdout=log, stderr=subprocess.STDOUT, env=_variables(), start_new_session=True
        )
        try:
            _wait_ready(process, port)
            yield Infinity(port)
        except WrongAnswer:
            raise
        except (RuntimeError, aiohttp.ClientError, TimeoutError) as exc:
            raise RuntimeError(
                f"Infinity failed ({exc or type(exc).__name__}); the end of its log:\n{_tail(log.fileno())}"
            ) from exc
        finally:
            _stop(process)


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
        *("--model-id", str(exported), "--served-model-name", _MODEL, "--host", _HOST, "--port", str(port)),
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


def _free_port() -> int:
    with socket.create_server((_HOST, 0)) as server:
        port: int = server.getsockname()[1]
    return port


def _wait_ready(process: subprocess.Popen[bytes], port: int) -> None:
    end_s = time.monotonic() + READY_S
    while time.monotonic() < end_s:
        if process.poll() is not None:
            raise RuntimeError(f"it ended with status {process.returncode} before it was ready")
        connection = http.client.HTTPConnection(_HOST, port, timeout=REQUEST_S)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == _OK:
                return
        except OSError:
            time.sleep(0.1)
        finally:
            connection.close()
    raise RuntimeError(f"it was not ready after {READY_S:g} s")


def _stop(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(STOP_S)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def _tail(log: int) -> str:
    size = os.fstat(log).st_size
    return os.pread(log, _TAIL_CHARS, max(0, size - _TAIL_CHARS)).decode(errors="replace")


def _body(jpeg: bytes) -> bytes:
    uri = f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
    return json.dumps({"model": _MODEL, "modality": "image", "input": uri}).encode()


async def _drive(port: int, bodies: Sequence[bytes], callers: int, end_s: float) -> list[_Answer]:
    """Let *callers* post *bodies* in turn until *end_s*; return every answer in the order of their ends."""
    answers: list[_Answer] = []
    number = count()

    async def call(session: aiohttp.ClientSession) -> None:
        while (started_s := time.perf_counter()) < end_s:
            picture = next(number) % len(bodies)
            async with session.post("/embeddings", data=bodies[picture]) as response:
                raw = await response.read()
            if response.status != _OK:
                raise RuntimeError(f"it answered {response.status}: {raw[:200]!r}")
            answers.append(_Answer(started_s, time.perf_counter(), picture, raw))

    async with aiohttp.ClientSession(
        f"http://{_HOST}:{port}",
        connector=aiohttp.TCPConnector(limit=callers),
        timeout=aiohttp.ClientTimeout(total=REQUEST_S),
        headers={"Content-Type": "application/json"},
    ) as session:
        await asyncio.gather(*(call(session) for _ in range(callers)))
    return answers


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
