"""Does the image's worker give the right vectors, whichever way it is asked? Run inside, with no network:

    python -m tests.in_image dry-run|http|queue COMMIT COMMAND...

COMMAND starts the worker, which must say that COMMIT is what it was built from. What is right was computed by
open_clip in fp32 and is mounted from the repository, so that the image cannot be its own witness.
"""

from __future__ import annotations

import ast
import base64
import io
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
from PIL import Image

from embedding.contract.keys import Key
from embedding.contract.signatures import sign_v3
from embedding.model.golden import golden_picture
from tests.loopback import LoopbackRunPod


GOLDEN = json.loads(Path(__file__).with_name("golden.json").read_text(encoding="utf-8"))
SIDE = 64  # the demo model's, so that the picture is not resized
MIN_COSINE = 0.9995
WANTED = {"encoding_format": "base64", "embed_dtype": "float16"}  # short enough for the SDK to print it whole
SECRET = "of-the-32-characters-that-it-needs"
ADDRESS = "http://127.0.0.1:8000"


def main() -> None:
    """Run the proof that the command line names; an AssertionError says what is wrong."""
    proof, commit, *command = sys.argv[1:]
    {"dry-run": dry_run, "http": http, "queue": queue}[proof](commit, command)


def dry_run(_commit: str, command: list[str]) -> None:
    """One job through the SDK's local mode, its result read from what the SDK prints: 4,096 characters."""
    job = json.dumps({"input": {"items": batch()["items"][:2], **WANTED}})
    done = subprocess.run([*command, "--test_input", job], check=True, stdout=subprocess.PIPE, text=True)
    line = next(line for line in done.stdout.splitlines() if "Job result: " in line)
    judge(ast.literal_eval(line.partition("Job result: ")[2])["output"]["results"], count=2)


def http(commit: str, command: list[str]) -> None:
    """Picture and texts over HTTP, by the token, until SIGTERM ends the worker with status 0."""
    environment = {"WORKER_MODE": "http", "WORKER_TOKEN": SECRET, "ALLOW_DEMO_MODEL": "1"}
    worker = subprocess.Popen(["env", *(f"{name}={value}" for name, value in environment.items()), *command])
    try:
        prove_http(commit, worker)
    finally:
        worker.kill()


def prove_http(commit: str, worker: subprocess.Popen) -> None:
    """What `http` says, of a worker that was just started."""
    while not is_ready():
        assert worker.poll() is None, "the worker ended before it was ready"
        time.sleep(0.1)
    image = ask("/v1/embed/image", {"image_base64": picture(), **WANTED})
    texts = ask("/v1/embed/text", {"texts": GOLDEN["texts"], **WANTED})
    judge([image, *texts["results"]])
    judge(ask("/v1/embed/image-batch", {**batch(), **WANTED})["results"])
    told = ask("/v1/ping")["identity"]["gitCommit"]
    assert told == commit, f"/v1/ping tells the commit {told}"
    worker.terminate()
    assert worker.wait(30) == 0, f"it ended with {worker.returncode}"


def queue(commit: str, command: list[str]) -> None:
    """A signed job and `health` through the queue; one that is not signed is refused."""
    environment = {"RUNPOD_SERVERLESS": "1", "EMBEDDING_HMAC_SECRET": SECRET, "ALLOW_DEMO_MODEL": "1"}
    with LoopbackRunPod() as platform, platform.worker(command, env=environment, cwd="/app") as worker:
        result = platform.run_sync(signed({**batch(), **WANTED}))
        print(worker.log())
        assert result.status == "COMPLETED", result.error
        judge(result.output["results"])
        told = platform.run_sync(signed({"action": "health", "check": True})).output
        assert told["identity"]["gitCommit"] == commit, f"health tells {told['identity']}"
        refused = platform.run_sync({"text": GOLDEN["texts"][0]})
        assert str(refused.error).startswith("AUTH_FAILED"), f"an unsigned job: {refused.status}"
        worker.terminate()
        assert worker.wait() == 0, f"it ended with {worker.returncode}"


def batch() -> dict:
    """Return a job of the golden picture, by way of a PNG, and the golden texts."""
    return {"items": [{"image_base64": picture()}, *({"text": text} for text in GOLDEN["texts"])]}


def picture() -> str:
    """Return the golden picture as a PNG in base64."""
    file = io.BytesIO()
    Image.fromarray(golden_picture(SIDE)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def signed(job_input: dict) -> dict:
    """Return *job_input* with a signature of its own."""
    return {**job_input, "auth": sign_v3(job_input, Key("default", SECRET.encode()))}


def judge(results: list[dict], *, count: int = 3) -> None:
    """Hold each result's vector against the golden one at its place; there must be *count*."""
    assert len(results) == count, results
    cosines = []
    for result, expected in zip(results, GOLDEN["vectors"][:count], strict=True):
        assert "embedding" in result, result
        vector = np.frombuffer(base64.b64decode(result["embedding"]), "<f2").astype(np.float64)
        cosines.append(vector @ np.array(expected) / np.linalg.norm(vector) / np.linalg.norm(expected))
    assert min(cosines) >= MIN_COSINE, f"wrong vectors: cosines {cosines} to open_clip's"
    print("cosines to open_clip's vectors:", ", ".join(f"{cosine:.6f}" for cosine in cosines))


def ask(path: str, body: dict | None = None) -> dict:
    """Return the answer to a request with the token."""
    headers = {"Authorization": f"Bearer {SECRET}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(ADDRESS + path, data, headers), timeout=30) as answer:
        return json.load(answer)


def is_ready() -> bool:
    """Whether the worker's /ping says that its model is loaded."""
    try:
        with urllib.request.urlopen(f"{ADDRESS}/ping", timeout=5) as answer:
            return answer.status == 200
    except urllib.error.URLError:
        return False


if __name__ == "__main__":
    main()
