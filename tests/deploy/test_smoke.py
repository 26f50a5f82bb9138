"""The smoke test: what must be true of an answer, and real workers that give it."""

from __future__ import annotations

import copy
import json
import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from deploy.caller import urls_of
from deploy.smoke import checks_of
from tests.deploy.conftest import API_KEY, CONFIG, NEW, OLD, ROOT
from tests.deploy.stand_in import answer, stand_in_worker
from tests.management_api import ManagementApi


GOOD = answer({"items": [{}, {"text": "a red circle"}, {"text": "a blue square"}]}, {})
TOKEN = "a-token-of-the-tests-that-has-more-than-32-bytes"
DEMO = CONFIG.replace("[env]", "[env]\nALLOW_DEMO_MODEL = 1\nOMP_NUM_THREADS = 1")


def changed(**fields):
    """Return the good answer with other fields in its last result."""
    output = copy.deepcopy(GOOD)
    output["results"][2] |= fields
    return output


NORMS = [(0.9989, False), (0.9991, True), (1.0009, True), (1.0011, False)]
ANSWERS = [
    (GOOD, True),
    ({"results": GOOD["results"][:2]}, False),
    ({"results": None}, False),
    ({}, False),
    (changed(dim=5), False),
    (changed(dim=3, embedding=[0.0, 1.0, 0.0]), False),
    (changed(embedding=[]), False),
    (changed(embedding="AAAA"), False),
    (changed(embedding=[0.0, float("nan"), 1.0, 0.0]), False),
    (changed(embedding=[1.0, 0.0, 0.0, 0.0]), False),
    *((changed(embedding=[0.0, norm, 0.0, 0.0]), passed) for norm, passed in NORMS),
]


@pytest.mark.parametrize(("output", "passed"), ANSWERS)
def test_checks(output, passed):
    """Three vectors of one length, finite, of norm 1 within a thousandth, the right text nearer."""
    assert all(good for _, good in checks_of(output)) is passed


def test_an_items_error_is_told():
    """A result without a vector is told by its code and message."""
    output = changed(embedding=None, error={"code": "DECODE_ERROR", "message": "damaged"})

    assert ("text 'a blue square': no vector, but DECODE_ERROR: damaged", False) in checks_of(output)


def test_a_failed_job_leaves_the_endpoint_and_says_how_to_go_back(deploy, api, platform):
    """Exit status 1, the job's own words, and the way back."""
    with stand_in_worker(platform, identity=dict, reply=lambda *_: {"error": "AUTH_FAILED: no"}):
        done = deploy.apply()

    assert (done.status, len(api.endpoints)) == (1, 1)
    assert "✗ the job is FAILED: AUTH_FAILED: no\n" in done.out
    assert "`python -m deploy rollback production` goes back" in done.out


def test_a_job_that_nobody_takes_ends_with_the_wait(deploy, api, platform):
    """The job is cancelled, and the state of the workers explained."""
    api.plan_workers((0.0, "UNHEALTHY"))
    jobs_before = platform.health()["jobs"]["inQueue"]
    done = deploy("apply", "--yes", "--wait-s", "0.3")

    assert done.status == 1
    assert "✗ the job was still IN_QUEUE when the wait was over" in done.out
    assert platform.health()["jobs"]["inQueue"] == jobs_before


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"EXPECTED_WORKER_GIT_COMMIT": "c0ffee1"}, "✓ identity as expected\n"),
        (
            {"EXPECTED_WORKER_GIT_COMMIT": "deadbee"},
            "! identity is not the expected one: the worker's commit is c0ffee1, expected is deadbee\n",
        ),
        (
            {"EXPECTED_WORKER_IMAGE_DIGEST": "sha256:" + 64 * "9"},
            "- identity not known: the worker declares no image digest\n",
        ),
        ({}, "- identity not known: nothing is expected\n"),
    ],
)
@pytest.mark.usefixtures("api", "worker")
def test_identity_warns_and_never_fails(deploy, monkeypatch, environ, told):
    """It matches, does not, or cannot be told; the exit status is that of the vectors."""
    deploy.write(CONFIG.replace(OLD, "you/worker:1"))
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    done = deploy.apply()

    assert done.status == 0
    assert told in done.out


def test_the_summary_is_markdown_without_the_signed_line(deploy, api, worker, tmp_path, monkeypatch):
    """--summary and GitHub's file get the same; whoever reads it can run no job."""
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "github.md"))
    deploy.apply("--summary", str(tmp_path / "summary.md"))
    text = (tmp_path / "summary.md").read_text(encoding="utf-8")

    assert text == (tmp_path / "github.md").read_text(encoding="utf-8")
    assert text.startswith(
        "## Deployed to production\n\n| what | value |\n| --- | --- |\n| endpoint | `endpoint1`"
    )
    assert "| identity | matches |\n| commit | `c0ffee1` |" in text
    assert "```diff\n+ endpoint clip\n" in text
    assert "- ✓ ranking of the picture" in text
    assert "sig" not in text


def test_a_real_queue_worker(deploy, api, platform):
    """The smoke job wakes a worker with the endpoint's own variables; then its curl line is answered."""
    deploy.write(DEMO)
    ended = []
    applying = threading.Thread(
        target=lambda: ended.append(deploy("apply", "--yes", "--wait-s", "60")), name="apply"
    )
    applying.start()
    api.wait_for("GET /v2/serverless/{id}/workers")
    command = [sys.executable, str(ROOT / "handler.py")]
    image = {"RUNPOD_SERVERLESS": "1", "CLIP_PRECISION": "fp32", "PYTHONPATH": str(ROOT)}
    with platform.worker(command, env=image | api.endpoints[0]["env"]):
        applying.join()
        curl = ended[0].out.splitlines()[-1]
        answered = subprocess.run(["bash", "-c", curl], capture_output=True, text=True, env=os.environ.copy())
        again = deploy("smoke")
        by_id = deploy.main("smoke", "--endpoint-id", "endpoint1", "--api-url", api.url, "--poll-s", "0.05")
        by_url = deploy.main("smoke", "--url", platform.endpoint_url, "--poll-s", "0.05")

    assert "✓ image: 512 numbers, norm 1.000000" in ended[0].out, ended[0].all
    assert "✓ identity as expected" in ended[0].out
    assert json.loads(answered.stdout)["output"]["dim"] == 512
    assert [each.status for each in (ended[0], again, by_id, by_url)] == [0, 0, 0, 0]
    assert "✓ ranking of the picture: 'a red circle' 0.5" in by_url.out


def test_a_real_load_balancing_worker(deploy, monkeypatch):
    """The HTTP service, with the variables of a load-balancing endpoint, passes signed, behind any bearer."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    base = f"http://127.0.0.1:{port}"
    deploy.write('type = "load_balancer"\n' + DEMO + f"[scaling]\nrequest_count = 4\n[http]\nport = {port}\n")
    with ManagementApi(job_url=base, api_key=API_KEY) as api:
        deploy.api = api
        deploy("apply", "--yes", "--wait-s", "0")
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RUNPOD_")}
        service = subprocess.Popen(
            [sys.executable, str(ROOT / "handler.py")],
            env=kept | api.endpoints[0]["env"] | {"HOST": "127.0.0.1", "CLIP_PRECISION": "fp32"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            done = deploy("apply", "--wait-s", "60")
            by_signature = deploy.main("smoke", "--url", base, "--wait-s", "10")
            monkeypatch.delenv("EMBEDDING_HMAC_SECRET")
            by_nobody = deploy.main("smoke", "--url", base, "--wait-s", "10")
        finally:
            service.kill()
            service.wait(10)

    assert [each.status for each in (done, by_signature, by_nobody)] == [0, 0, 1], done.all
    assert f'curl -s {base}/v1/embed/text -H "Authorization: Bearer $RUNPOD_API_KEY"' in done.out
    assert "AUTH_FAILED: auth is missing" in by_nobody.out


class Recorder(BaseHTTPRequestHandler):
    """A service that answers as a good worker does, and remembers the bearer tokens."""

    seen: ClassVar[list[str | None]] = []

    def do_GET(self):
        self.tell(answer({"action": "health"}, {}))

    def do_POST(self):
        self.tell(answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))), {}))

    def tell(self, output):
        self.seen.append(self.headers.get("Authorization"))
        body = json.dumps(output).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Say nothing."""


@pytest.mark.parametrize(("token", "bearer"), [(f"{TOKEN},next", f"Bearer {TOKEN}"), ("", None)])
def test_a_service_gets_its_token_and_never_the_key(deploy, monkeypatch, token, bearer):
    """Over HTTP WORKER_TOKEN is the bearer token; RunPod's key is for RunPod."""
    monkeypatch.setenv("WORKER_TOKEN", token)
    Recorder.seen.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Recorder) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        done = deploy.main("smoke", "--url", f"http://127.0.0.1:{server.server_port}")
        server.shutdown()

    assert (done.status, set(Recorder.seen)) == (0, {bearer})


class Starting(Recorder):
    """The same behind a balancer that has nothing to say while no worker is there."""

    def tell(self, output):
        if len(self.seen) > 1:
            return super().tell(output)
        self.seen.append(None)
        self.send_response(204)
        self.end_headers()
        return None


def test_an_empty_answer_is_asked_for_again(deploy):
    """A balancer answers 204 while a worker starts."""
    Recorder.seen.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Starting) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        done = deploy.main("smoke", "--url", f"http://127.0.0.1:{server.server_port}", "--poll-s", "0.01")
        server.shutdown()

    assert done.status == 0, done.all


def test_nobody_at_the_address_is_told_soon(deploy):
    """With its cause, long before the wait is over."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        done = deploy.main("smoke", "--url", url, "--poll-s", "0.01", "--wait-s", "100")

    assert done.status == 1
    assert f"no connection to {url[7:]}: Connection refused\n" in done.out


def test_what_runs_is_expected_and_not_what_the_file_says(deploy, api, worker):
    """An image that a flag named is the one that is deployed."""
    deploy.apply("--image", NEW)

    assert "✓ identity as expected" in deploy("smoke").out


ADDRESSES = {
    "as told": ({"id": "e", "requestUrls": {"run": "r"}}, {"run": "r"}),
    "a queue": ({"id": "e", "type": "QUEUE"}, {"run": "https://api.runpod.ai/v2/e/run"}),
    "a load balancer": ({"id": "e", "type": "LOAD_BALANCER"}, {"base": "https://e.api.runpod.ai"}),
}


@pytest.mark.parametrize(("endpoint", "urls"), ADDRESSES.values(), ids=ADDRESSES.keys())
def test_addresses(endpoint, urls):
    """They are the API's, which may leave them out: then they follow from the id."""
    assert urls.items() <= urls_of(endpoint).items()


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--endpoint-id", "e", "--url", "http://127.0.0.1:1"),
        ("production", "--url", "http://127.0.0.1:1"),
        ("production", "--endpoint-id", "e", "--url", "http://127.0.0.1:1"),
    ],
)
def test_something_must_be_named(deploy, flags):
    """`smoke` needs exactly one of an environment, an id and a URL."""
    assert "hint: give one of ENV, --endpoint-id ID and --url URL" in deploy.main("smoke", *flags).err


def test_no_endpoint_no_smoke_test(deploy, api):
    """What was never applied cannot be tested."""
    assert "no endpoint is called clip" in deploy("smoke").err
