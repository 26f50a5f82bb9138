"""From the first ping to the end: loading, room, callers who leave, signals, and what cannot start."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.serve.conftest import ROOT
from tests.serve.http.process import OPEN, SERVE, SHARED, serving


TEXT = "/v1/embed/text"
SLOW = [sys.executable, str(Path(__file__).with_name("slow_service.py"))]
SLOW_ENV = OPEN | {"WORKER_MODE": "http", "WORKER_CONCURRENCY": "3"}
HALF_A_SECOND = {"text": "a a a a a"}


@pytest.fixture
def slow():
    """Return a service whose forward of a text takes a tenth of a second a word, with three places."""
    with serving(SLOW_ENV, command=SLOW) as service:
        yield service


def test_leaving_without_stdout():
    """A service that was started with stdout closed ends with its status all the same."""
    body = "import sys; from embedding.serve.http.server import _leave; sys.stdout = None; _leave(3)"
    done = subprocess.run([sys.executable, "-c", body], cwd=ROOT, capture_output=True, check=False)

    assert (done.returncode, done.stderr) == (3, b"")


def test_loading():
    """The port answers before the model is there: 204 to a load balancer, 503 to callers, then 200."""
    with serving(ready=False) as service:
        assert service.client.get("/ping").status_code == 204
        assert service.client.get("/v1/ping").json()["status"] == "loading"
        refused = service.client.post(TEXT, json={"text": "a"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "OVERLOADED")
        assert refused.headers["retry-after"] == "1"
        assert service.client.get("/health").status_code == 503
        service.wait_ready()
        assert service.client.post(TEXT, json={"text": "a"}).status_code == 200


def test_second_port_for_health():
    """PORT_HEALTH answers the load balancer beside PORT."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with serving(OPEN | {"PORT_HEALTH": str(port)}) as service:
        assert str(port) not in service.url
        assert httpx.get(f"http://127.0.0.1:{port}/ping").status_code == 200


def test_demo_is_the_demo_model():
    """--demo opens the demo model to all, and never the real one that the environment names."""
    real = {"CLIP_MODEL_NAME": "ViT-L-14", "CLIP_PRETRAINED": "openai", "WORKER_TOKEN": "t" * 32}
    with serving(real, command=[*SERVE, "--demo"]) as service:
        told = service.client.get("/v1/ping").json()

    assert (told["models"], told["auth"]) == (["demo"], ["none"])


class TestRoom:
    def test_one_more_than_fits(self, slow):
        """Three run, a fourth is told to come again in a second; places come free."""
        with ThreadPoolExecutor(4) as threads:
            statuses = list(threads.map(lambda _: post(slow), range(4)))

        assert sorted(statuses) == [200, 200, 200, 429]
        assert post(slow) == 200

    def test_caller_who_hangs_up(self, slow):
        """Whoever leaves frees his place at once, and what has not begun of what he asked for is not run."""
        running = [hanging_up(slow, {"text": f"{'b ' * number}{'a ' * 8}"}) for number in (0, 1, 2)]
        for connection in running:
            connection.close()
        time.sleep(0.1)

        assert post(slow, {"text": "a"}) == 200
        done = re.findall(
            r'^clip_forward_items_sum\{kind="text"\} (\S+)$', slow.client.get("/metrics").text, re.MULTILINE
        )
        assert float(done[0]) <= 2

    def test_body_that_never_comes(self, slow):
        """Callers who announce bodies and send none take no places."""
        idle = [hanging_up(slow, None) for _ in range(20)]

        assert post(slow) == 200
        for connection in idle:
            connection.close()


class TestEnd:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_what_runs_is_answered(self, slow, number):
        """A signal lets what has begun end well; callers who come later are sent elsewhere; status 0."""
        with ThreadPoolExecutor(1) as threads:
            running = threads.submit(post, slow)
            time.sleep(0.2)
            slow.process.send_signal(number)
            slow.wait_log("finishing 1 requests, beginning no more")
            assert slow.client.get("/ping").status_code == 503
            assert slow.client.post(TEXT, json={"text": "a"}).status_code == 503
            assert running.result() == 200
        assert slow.process.wait(10) == 0

    def test_body_that_is_arriving(self, slow):
        """A request whose body has begun to come is one that has begun."""
        body = b'{"text": "a"}'
        with socket.create_connection(("127.0.0.1", slow.port)) as connection:
            connection.sendall(
                b"POST /v1/embed/text HTTP/1.1\r\nhost: a\r\ncontent-length: 13\r\n\r\n" + body[:5]
            )
            time.sleep(0.2)
            slow.process.send_signal(signal.SIGTERM)
            slow.wait_log("finishing 1 requests, beginning no more")
            time.sleep(0.3)
            connection.sendall(body[5:])
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
        assert slow.process.wait(10) == 0

    def test_signal_while_loading(self):
        """A service that is still loading ends at once, however long that would take."""
        program = (
            "import time; from embedding.serve import start; start.Loading = lambda *_: time.sleep(60); "
        )
        command = [sys.executable, "-c", f"{program}import sys; sys.exit(start.start().run())"]
        with serving(OPEN | {"WORKER_MODE": "http"}, command=command, ready=False) as service:
            assert service.client.get("/ping").status_code == 204
            assert service.stop() == 0

    def test_second_signal(self, slow):
        """A second signal ends the service now; what ran has failed."""
        with ThreadPoolExecutor(1) as threads:
            running = threads.submit(post, slow, {"text": "a " * 39})
            time.sleep(0.2)
            slow.process.send_signal(signal.SIGTERM)
            slow.wait_log("finishing 1 requests")
            started_s = time.monotonic()
            slow.process.send_signal(signal.SIGINT)
            assert slow.process.wait(5) == 128 + signal.SIGINT
            assert time.monotonic() - started_s < 3
            assert running.exception() or running.result() >= 500


def test_device_that_fails(slow):
    """What the device could not do is told as 500; the service ends with status 1, to be started again."""
    assert post(slow, {"text": "a " * 40}) == 500
    assert slow.process.wait(10) == 1
    assert "the device has failed: the service ends" in slow.log()


class TestRefusals:
    @pytest.mark.parametrize(
        ("env", "arguments", "told"),
        [
            ({}, [], "EMBEDDING_HMAC_SECRET and WORKER_TOKEN are not set"),
            ({"WORKER_TOKEN": "short"}, [], "WORKER_TOKEN: every token must have at least 32 bytes"),
            ({"WORKER_TOKEN": "t" * 32}, [], "no model is chosen"),
            (OPEN, ["--port", "65536"], "PORT: Input should be less than or equal to 65535"),
            (OPEN, ["--host", "256.1.1.1"], "port 0 of 256.1.1.1 cannot be listened on"),
            (OPEN | {"MODEL_PATH": "/nowhere"}, [], "/nowhere"),
        ],
    )
    def test_one_plain_line_and_exit_1(self, env, arguments, told):
        """What cannot start says why in one line, and leaves with status 1."""
        done = subprocess.run(
            [*SERVE, *arguments], env=SHARED | env, capture_output=True, text=True, timeout=60, check=False
        )

        assert done.returncode == 1
        assert [told in line for line in done.stderr.splitlines()] == [True]

    def test_load_that_fails_in_a_way_nobody_foresaw(self):
        """A model that cannot be loaded for an unknown reason ends the service, with the traceback before."""
        program = "import sys; from embedding.serve import start; start.Loading = lambda *_: 1 / 0; "
        done = subprocess.run(
            [sys.executable, "-c", program + "sys.exit(start.start().run())"],
            env=SHARED | OPEN | {"WORKER_MODE": "http"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

        assert done.returncode == 1
        assert done.stderr.count("ZeroDivisionError: division by zero") == 1
        assert "✗ cannot start: ZeroDivisionError while the model was loaded" in done.stderr.splitlines()[-1]

    def test_port_that_is_taken(self):
        """A port that another has is named."""
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            done = subprocess.run(
                [*SERVE, "--port", str(port)], env=SHARED | OPEN, capture_output=True, text=True, check=False
            )

        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert f"port {port} of 127.0.0.1 cannot be listened on: Address already in use" in done.stderr


def post(service, body=HALF_A_SECOND):
    """Return the status of a request for half a second."""
    return httpx.post(f"{service.url}{TEXT}", json=body, timeout=30).status_code


def hanging_up(service, body):
    """Return a connection over which *body* was sent, or no more than its announcement."""
    host, port = service.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)))
    content = httpx.Request("POST", service.url, json=body).content if body else b""
    length = len(content) or 1000
    head = f"POST {TEXT} HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n"
    connection.sendall(head.encode() + content)
    time.sleep(0.05)
    return connection
