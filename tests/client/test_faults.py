"""What goes wrong between a caller and a worker: what is tried again, how often, and what is told."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from embedding.client import (
    AsyncServerlessClient,
    BadAnswer,
    Closed,
    HttpClient,
    IdentityWarning,
    ItemsFailed,
    JobFailed,
    ModelChanged,
    NotConfigured,
    Refused,
    ServerlessClient,
    Unreachable,
    identity,
    serverless,
)
from embedding.client.calls import ENVELOPE_BYTES
from embedding.client.inputs import size_bytes
from tests.client.scripted import Answer, as_worker, completed, embedded, scripted


KEY = "a-key-that-nobody-may-read"
SECRET = "a-secret-that-nobody-may-read-or-guess"
PROXY = "<html><body>502 Bad Gateway</body></html>"


@pytest.fixture
def script():
    """Return a server that answers by a script."""
    with scripted() as script:
        yield script


@pytest.fixture(params=["serverless", "http"])
def make(request, script):
    """Return what makes a client of either kind for the script."""

    def client(**options):
        if request.param == "http":
            return HttpClient(script.url, **{"token": KEY, "secret": SECRET, **options})
        return ServerlessClient("x1", KEY, **{"api_url": f"{script.url}/v2", "secret": SECRET, **options})

    return client


@pytest.fixture
def queue(script):
    """Return a client of the queue."""
    with ServerlessClient("x1", KEY, api_url=f"{script.url}/v2", secret=SECRET, timeout_s=5) as client:
        yield client


@pytest.mark.usefixtures("short_pauses")
class TestAttempts:
    @pytest.mark.parametrize(
        "answer",
        [*(Answer(status, PROXY.encode()) for status in (408, 425, 429, 500, 502, 503, 504, 524, 599)),
         Answer(drops=True)],
        ids=lambda answer: "dropped" if answer.drops else str(answer.status),
    )  # fmt: skip
    def test_what_may_pass_is_tried_again(self, make, script, answer):
        """Statuses that say nothing of the request, and lost connections, are borne."""
        script.answers = [answer, answer]

        with make() as client:
            assert client.embed_text("x").shape == (4,)
        assert len(script.asked) == 3

    @pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 401, 403, 404, 405, 409, 410, 422])
    def test_what_will_not_pass_is_asked_once(self, make, script, status):
        """A refusal ends the call at once, whoever it comes from."""
        script.answers = [Answer(status, PROXY.encode(), {"Location": "https://other.example/?key=1"})]

        with make() as client, pytest.raises(Refused, match=f"HTTP {status}") as refused:
            client.embed_text("x")

        assert (len(script.asked), refused.value.status) == (1, status)

    @pytest.mark.parametrize("attempts", [1, 2, 6])
    def test_attempts_end(self, make, script, attempts):
        """As many requests are sent as the client may send, and the last answer is told."""
        script.answers = [Answer(503, b"overloaded")] * 9

        with make(attempts=attempts) as client, pytest.raises(Unreachable, match="HTTP 503 overloaded"):
            client.embed_text("x")

        assert len(script.asked) == attempts

    def test_each_attempt_has_a_signature_of_its_own(self, make, script):
        """A worker takes a signature once, so none is sent twice."""
        script.answers = [Answer(503)] * 3

        with make() as client:
            client.embed_text("x")

        assert len({asked.input["auth"]["nonce"] for asked in script.asked}) == 4

    @pytest.mark.parametrize(
        "headers",
        [
            {"Retry-After": "1"},
            {
                "Retry-After": "Fri, 31 Dec 1999 23:59:01 GMT",
                "Date": "Fri, 31 Dec 1999 23:59:00 GMT",
            },
        ],
        ids=["seconds", "date"],
    )
    def test_a_service_says_when_to_come_again(self, script, headers):
        """Retry-After is believed, whatever the clocks say."""
        script.answers = [lambda _: Answer(429, b"", headers)]

        with HttpClient(script.url) as client:
            client.embed_text("x")

        first, second = (asked.at_s for asked in script.asked)
        assert 1 <= second - first < 1.5

    def test_a_service_that_asks_for_too_long(self, make, script):
        """Nobody waits for what comes after the time is over."""
        script.answers = [Answer(429, b"", {"Retry-After": "3600"})]
        start_s = time.monotonic()

        with make(timeout_s=2) as client, pytest.raises(Unreachable, match="asks to wait 3600 s"):
            client.embed_text("x")

        assert time.monotonic() - start_s < 1

    def test_a_service_that_never_answers(self, make, script):
        """The time of a call bounds it, whatever the other side does."""
        script.answers = [Answer(delay_s=2)] * 9
        start_s = time.monotonic()

        with make(timeout_s=0.3) as client, pytest.raises(Unreachable, match="before the time was over"):
            client.embed_text("x")

        assert time.monotonic() - start_s < 1

    def test_nobody_listens(self, make, script):
        """A port without a service is told as such, in the time that there is."""
        client = make(timeout_s=1)
        script.answers = []
        client._client._transport._url = client._client._transport._submit_url = "http://127.0.0.1:9"

        with client, pytest.raises(Unreachable, match="ConnectError"):
            client.embed_text("x")


class TestAnswers:
    @pytest.mark.parametrize(
        "output",
        [
            {"results": []},
            {"results": [{"embedding": "!"}]},
            {"results": [{"error": "x"}]},
            {"results": [None]},
            {"results": 5},
            {},
            [],
            "x",
        ],
        ids=str,
    )
    def test_of_something_else(self, make, script, output):
        """What answers without a result for each item is no worker of this kind."""
        script.answers = [lambda asked: completed(output) if "/v2/" in asked.path else output]

        with make() as client, pytest.raises(BadAnswer, match="is this such a worker"):
            client.embed_text("x")

    @pytest.mark.parametrize("body", [PROXY.encode(), b'{"id": "cut', b"", b"[" * 100_000, b"\xff\xfe"])
    def test_that_are_no_json(self, make, script, body):
        """A page of a proxy is told by its beginning."""
        script.answers = [Answer(200, body)]

        with make() as client, pytest.raises(BadAnswer, match="is not JSON, so no worker gave it"):
            client.embed_text("x")

    @pytest.mark.parametrize(
        "body",
        [b"[" * 100_000, {"error": {"code": 5, "message": "no", "retryable": False}}, {"error": None}, []],
        ids=["deep", "another code", "nothing", "a list"],
    )
    def test_of_another_service(self, script, body):
        """What refuses a request in a form that is not the worker's is told as it is."""
        script.answers = [Answer(400, body)]

        with HttpClient(script.url) as client, pytest.raises(Refused, match="HTTP 400: "):
            client.embed_texts(["a", "b"], on_error="collect")

    @pytest.mark.parametrize("status", [200, 307, 400, 404, 503])
    def test_that_echo_the_credential(self, make, script, status):
        """A key, token or secret stands in no message, even where a server sends it back."""

        def echo(asked):
            told = asked.headers["Authorization"]
            return Answer(status, f"<p>{told} is not known</p>".encode(), {"Location": f"https://x/{told}"})

        script.answers = [echo]
        with make(attempts=1) as client, pytest.raises((BadAnswer, Refused, Unreachable)) as told:
            client.embed_text("x")

        assert "***" in str(told.value)
        assert KEY not in repr(told.value) + str(getattr(told.value, "body", ""))
        assert SECRET not in repr(told.value) + repr(vars(client._client))

    @pytest.mark.parametrize("dim", [4, 6])
    def test_of_two_models(self, make, script, dim):
        """A deployment in the middle of a call ends it: such vectors must not be compared."""
        script.answers = [as_worker, lambda asked: as_worker(asked, fingerprint="0" * 16, dim=dim)]

        with make(max_batch_size=1, concurrency=1) as client, pytest.raises(ModelChanged) as changed:
            client.embed_texts(["a", "b", "c"])

        codes = [error and error.code for error in changed.value.partial.errors]
        assert codes[0] is None
        assert set(codes[1:]) == {"NOT_REACHED"}

    def test_what_was_embedded_before_is_not_lost(self, make, script):
        """An exception in the middle of a call holds the vectors that there are."""
        script.answers = [as_worker, Answer(400, b"no")]

        with make(max_batch_size=2, concurrency=1) as client, pytest.raises(Refused) as refused:
            client.embed_texts(["a", "b", "c", "d"])

        partial = refused.value.partial
        assert [error and error.code for error in partial.errors] == [
            None,
            None,
            "NOT_REACHED",
            "NOT_REACHED",
        ]
        assert partial.vectors.shape == (4, 4)


@pytest.mark.usefixtures("short_pauses")
class TestItems:
    def test_only_those_that_failed_are_sent_again(self, make, script):
        """A download that failed is tried again, without the others of its batch."""
        script.answers = [
            lambda asked: as_worker(asked, failing=[1, 3]),
            lambda asked: as_worker(asked, failing=[1]),
        ]
        with make() as client:
            result = client.embed_texts(["a", "b", "c", "d"])

        assert [asked.contents for asked in script.asked] == [["a", "b", "c", "d"], ["b", "d"], ["d"]]
        assert not any(result.errors)

    def test_a_third_time_is_the_last(self, make, script):
        """An item that goes on failing keeps its error."""
        script.answers = [lambda asked: as_worker(asked, failing=[0])] * 9
        with make() as client, pytest.raises(ItemsFailed, match="DOWNLOAD_ERROR: the server answered 503"):
            client.embed_texts(["a", "b"])

        assert [asked.contents for asked in script.asked] == [["a", "b"], ["a"], ["a"]]

    def test_a_proxy_that_takes_less(self, make, script):
        """Jobs too large for something on the way are halved, down to the item that is too large alone."""

        def small(asked):
            if sum(map(len, asked.contents)) > 1000:
                return Answer(413, b"<html>413 Request Entity Too Large</html>")
            return as_worker(asked)

        script.answers = [small] * 20
        texts = ["a" * 400, "b" * 1001, "c" * 400, "d" * 400]
        with make() as client:
            result = client.embed_texts(texts, on_error="collect")

        assert [error and error.code for error in result.errors] == [None, "REQUEST_TOO_LARGE", None, None]

    @pytest.mark.parametrize(("spare", "requests"), [(-1, 2), (0, 1), (1, 1)])
    def test_bytes_of_a_request(self, make, script, spare, requests):
        """Items share a request as long as it carries them, to the byte, and none is larger than allowed."""
        allowed = ENVELOPE_BYTES + 3 * size_bytes({"text": "a" * 5000}) + spare
        with make() as client:
            client._client._transport.max_request_bytes = allowed
            client.embed_texts(["a" * 5000] * 3)

        assert len(script.asked) == requests
        assert max(int(asked.headers["Content-Length"]) for asked in script.asked) <= allowed


@pytest.mark.usefixtures("short_pauses")
class TestQueue:
    def test_a_result_that_is_gone(self, queue, script):
        """A job of which the platform knows nothing any more is sent again."""
        script.answers = [{"id": "j1", "status": "IN_QUEUE"}, Answer(404, b"job not found")]

        assert queue.embed_text("x").shape == (4,)
        paths = [asked.path for asked in script.asked]
        assert paths == ["/v2/x1/runsync?wait=2000", "/v2/x1/status/j1", "/v2/x1/runsync?wait=2000"]

    def test_a_result_that_is_empty(self, queue, script):
        """A job that is COMPLETED without an output is sent again."""
        script.answers = [{"id": "j1", "status": "COMPLETED"}]

        assert queue.embed_text("x").shape == (4,)
        assert len(script.asked) == 2

    def test_a_lost_answer(self, queue, script):
        """A submission whose answer was lost is sent again: a job twice is better than none."""
        script.answers = [Answer(drops=True), {"id": "j1", "status": "RETRYING"}, Answer(502)]
        script.answers += [lambda _: completed(embedded({"items": [1]}))]

        assert queue.embed_text("x").shape == (4,)
        assert [asked.method for asked in script.asked] == ["POST", "POST", "GET", "GET"]

    def test_a_failure_that_may_pass(self, queue, script):
        """A worker that was full is asked again, with a signature of its own."""
        full = {"id": "j", "status": "FAILED", "error": "OVERLOADED: full", "output": {"retryable": True}}
        script.answers = [full, full]

        assert queue.embed_text("x").shape == (4,)
        assert len({asked.input["auth"]["nonce"] for asked in script.asked}) == 3

    @pytest.mark.parametrize(
        ("standing", "code", "message"),
        [
            ({"status": "FAILED", "error": "INVALID_INPUT: no"}, "INVALID_INPUT", "no"),
            ({"status": "FAILED", "error": "Traceback: x"}, "JOB_FAILED", "Traceback: x"),
            ({"status": "FAILED"}, "JOB_FAILED", "the platform says no more"),
            ({"status": "TIMED_OUT"}, "JOB_TIMED_OUT", "the platform says no more"),
            ({"status": "CANCELLED"}, "JOB_CANCELLED", "the platform says no more"),
        ],
        ids=str,
    )
    def test_a_failure_that_will_not_pass(self, queue, script, standing, code, message):
        """It is told once, as the error of each of its items."""
        script.answers = [{"id": "j1", **standing}]
        result = queue.embed_texts(["a", "b"], on_error="collect")

        assert [(error.code, error.message) for error in result.errors] == [(code, message)] * 2
        assert len(script.asked) == 1

    @pytest.mark.parametrize(
        ("status", "words"),
        [(401, "refuses the API key"), (403, "for this endpoint"), (404, "knows no endpoint of this id")],
    )
    def test_a_wrong_key_or_endpoint(self, queue, script, status, words):
        """The message says which of the two to look at."""
        script.answers = [Answer(status, b"no")]

        with pytest.raises(Refused, match=words):
            queue.embed_text("x")

    def test_a_health_that_is_none(self, queue, script):
        """An endpoint of other workers has another health."""
        script.answers = [completed("fine")]

        with pytest.raises(BadAnswer, match="no report of a worker's health"):
            queue.health()

    @pytest.mark.parametrize(
        ("timeout_s", "ttl_ms"),
        [(1, 10_000), (10, 10_000), (11, 11_000), (3600, 3_600_000), (3601, 3_600_000)],
    )
    def test_a_job_does_not_outlive_its_caller(self, script, timeout_s, ttl_ms):
        """What a killed caller leaves behind ends with its time, and before its signature does."""
        url = f"{script.url}/v2"
        with ServerlessClient("x1", KEY, api_url=url, timeout_s=timeout_s) as client:
            client.embed_text("x")

        assert script.asked[0].body["policy"] == {"ttl": ttl_ms}

    def test_long_work_goes_to_run(self, script):
        """Its results are kept for half an hour."""
        script.answers = [{"id": "j1", "status": "IN_QUEUE"}, lambda _: completed(embedded({"items": [1]}))]
        with ServerlessClient("x1", KEY, api_url=f"{script.url}/v2", is_long=True) as client:
            client.embed_text("x")

            assert client._client._transport.max_request_bytes == 10_000_000
        assert [asked.path for asked in script.asked] == ["/v2/x1/run", "/v2/x1/status/j1"]

    def test_nobody_takes_the_job(self, script):
        """A job that is queued when the time is over is cancelled, and the message says what to look at."""
        waiting = {"id": "j1", "status": "IN_QUEUE"}
        script.answers = [waiting] * 9
        with ServerlessClient("x1", KEY, api_url=f"{script.url}/v2", timeout_s=1.5) as client:
            with pytest.raises(Unreachable, match=r"IN_QUEUE after 1.5 s, and was cancelled: no worker"):
                client.embed_text("x")

        assert script.asked[-1].path == "/v2/x1/cancel/j1"

    def test_a_cancelled_task_cancels_its_job(self, script):
        """Also when the platform has not told the job's id yet."""
        script.answers = [Answer(body={"id": "j1", "status": "IN_QUEUE"}, delay_s=0.4), Answer(body={})]

        async def hurry():
            async with AsyncServerlessClient("x1", KEY, api_url=f"{script.url}/v2") as client:
                async with asyncio.timeout(0.1):
                    await client.embed_text("x")

        with pytest.raises(TimeoutError):
            asyncio.run(hurry())
        assert [asked.path for asked in script.asked] == ["/v2/x1/runsync?wait=2000", "/v2/x1/cancel/j1"]

    @pytest.mark.parametrize(
        "told",
        [Answer(200, PROXY.encode()), Answer(401, b"no"), {"id": "j1"}],
        ids=["no JSON", "refused", "no status"],
    )
    def test_nonsense_while_the_job_runs(self, queue, script, told):
        """Whoever cannot be told how a job stands does not wait for it, so it is cancelled."""
        script.answers = [{"id": "j1", "status": "IN_PROGRESS"}, told]

        with pytest.raises((BadAnswer, Refused)):
            queue.embed_text("x")
        assert script.asked[-1].path == "/v2/x1/cancel/j1"

    def test_nothing_is_sent_after_a_cancellation(self, script):
        """A submission that waits to be sent again is given up, and leaves no job behind."""
        script.answers = [Answer(429, b"", {"Retry-After": "60"})]

        async def hurry():
            async with AsyncServerlessClient("x1", KEY, api_url=f"{script.url}/v2") as client:
                call = asyncio.ensure_future(client.embed_text("x"))
                while not script.asked:
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.1)  # the answer comes, and the pause begins
                start_s = time.monotonic()
                call.cancel()
                await asyncio.wait([call])
                return call.cancelled(), time.monotonic() - start_s

        is_cancelled, took_s = asyncio.run(hurry())
        assert (is_cancelled, took_s < 4, len(script.asked)) == (True, True, 1)

    def test_a_job_that_is_being_signed_is_not_sent(self, script, monkeypatch):
        """Whoever is cancelled before a job is on its way has sent none."""
        is_begun, is_signed = threading.Event(), threading.Event()

        def sign(job_input, _key):
            is_begun.set()
            is_signed.wait(20)
            return {}

        async def hurry():
            async with AsyncServerlessClient("x1", KEY, api_url=f"{script.url}/v2", secret=SECRET) as client:
                call = asyncio.ensure_future(client.embed_text("x"))
                await asyncio.to_thread(is_begun.wait, 20)
                call.cancel()
                asyncio.get_running_loop().call_soon(is_signed.set)
                await asyncio.wait([call])

        monkeypatch.setattr(serverless, "sign_v3", sign)
        asyncio.run(hurry())
        assert script.asked == []

    def test_a_late_refusal_is_not_tried_again(self, script):
        """A submission that fails after its caller was cancelled was the last."""
        is_refused = threading.Event()

        def refuse(_asked):
            is_refused.wait(20)
            return Answer(503)

        script.answers = [refuse]

        async def hurry():
            async with AsyncServerlessClient("x1", KEY, api_url=f"{script.url}/v2") as client:
                call = asyncio.ensure_future(client.embed_text("x"))
                while not script.asked:
                    await asyncio.sleep(0.01)
                call.cancel()
                asyncio.get_running_loop().call_soon(is_refused.set)
                await asyncio.wait([call])

        asyncio.run(hurry())
        assert len(script.asked) == 1

    def test_a_platform_that_is_gone_while_the_job_runs(self, script):
        """When nobody can say how a job stands, it is cancelled too."""
        script.answers = [{"id": "j1", "status": "IN_PROGRESS"}, Answer(503), Answer(503)]
        url = f"{script.url}/v2"
        with ServerlessClient("x1", KEY, api_url=url, attempts=2) as client:
            with pytest.raises(Unreachable, match=r"no answer from 127\.0\.0\.1:\d+ after 2 attempts"):
                client.embed_text("x")

        assert script.asked[-1].path == "/v2/x1/cancel/j1"

    @pytest.mark.parametrize("delay_s", [0, 0.4])
    def test_closing_cancels_what_other_threads_wait_for(self, script, delay_s):
        """They are told, and their jobs end, also those whose id is still to come."""
        standing = {"id": "j1", "status": "IN_QUEUE"}
        script.answers = [Answer(body=standing, delay_s=delay_s), *[standing] * 99]
        client = ServerlessClient("x1", KEY, api_url=f"{script.url}/v2")
        told = []

        def wait():
            with pytest.raises(Closed, match="closed while the call ran") as closed:
                client.embed_text("x")
            told.append(closed.value)

        thread = threading.Thread(target=wait)
        thread.start()
        while not script.asked:
            time.sleep(0.01)
        client.close()
        thread.join(10)

        assert len(told) == 1
        assert script.asked[-1].path == "/v2/x1/cancel/j1"


class TestService:
    @pytest.mark.parametrize(
        "told",
        [
            {"detail": "Not Found"},
            {"error": {"code": "INVALID_INPUT", "message": "there is no such route", "retryable": False}},
        ],
        ids=["of another service", "of a worker"],
    )
    def test_another_address(self, script, told):
        """A path that is not there says what the address should be, and is no fault of an item."""
        script.answers = [Answer(404, told)] * 2

        with HttpClient(f"{script.url}/v1") as client:
            for call in (lambda: client.embed_text("x"), client.health):
                with pytest.raises(Refused, match="without a path"):
                    call()

    def test_a_worker_that_does_not_say_what_it_is(self, script, monkeypatch):
        """Whoever expects one is told how long that was waited for, and has the vectors."""
        monkeypatch.setattr(identity, "ASK_S", 0.1)
        script.answers = [as_worker, Answer(body={}, delay_s=1)]

        with HttpClient(script.url, expected_commit="0" * 40) as client:
            with pytest.warns(IdentityWarning, match=r"may not be .*: none said within 0\.1 s what it is"):
                assert client.embed_text("x").shape == (4,)

    def test_a_redirect_names_its_end(self, script):
        """A proxy that wants https says so."""
        script.answers = [Answer(308, b"", {"Location": "https://pod.example/v1?token=1"})]

        with HttpClient(script.url) as client, pytest.raises(Refused, match=r"https://pod.example/v1: give"):
            client.embed_text("x")

    def test_a_wrong_token(self, script):
        """The message says which variable of the service to compare with."""
        error = {"code": "AUTH_FAILED", "message": "no", "retryable": False, "request_id": None}
        script.answers = [Answer(401, {"error": error})]

        with HttpClient(script.url, token=KEY) as client, pytest.raises(JobFailed, match="WORKER_TOKEN"):
            client.embed_text("x")


class TestAddresses:
    @pytest.mark.parametrize(
        ("make", "words"),
        [
            (lambda: ServerlessClient("https://api.runpod.ai/v2/x/run", KEY), "endpoint_id must be"),
            (lambda: ServerlessClient("", KEY), "endpoint_id must be"),
            (lambda: ServerlessClient("x1", ""), "api_key must be printable ASCII"),
            (lambda: ServerlessClient("x1", "two words"), "api_key must be printable ASCII"),
            (lambda: ServerlessClient("x1", "k\u00e9y"), "api_key must be printable ASCII"),
            (lambda: ServerlessClient("x1", KEY, secret="short"), "at least 32 bytes"),
            (lambda: ServerlessClient("x1", KEY, api_url="api.runpod.ai"), "api_url must be an address"),
            (lambda: ServerlessClient("x1", KEY, concurrency=0), "concurrency is 0; it must be 1 or more"),
            (lambda: HttpClient("127.0.0.1:8000"), "base_url must be an address"),
            (lambda: HttpClient("ftp://x.example"), "base_url must be an address"),
            (lambda: HttpClient("https://"), "base_url must be an address"),
            (lambda: HttpClient("http://[::1"), "base_url must be an address"),
            (lambda: HttpClient("http://x.example:99999"), "base_url must be an address"),
            (lambda: HttpClient("https://x .example"), "base_url must be an address"),
            (lambda: HttpClient("https://x.example\n"), "base_url must be an address"),
            (lambda: HttpClient("https://x.example/?key=1"), "base_url must be an address"),
            (lambda: HttpClient("https://x.example/#v1"), "base_url must be an address"),
            (lambda: HttpClient("https://x", token="a\nb"), "token must be printable ASCII"),
            (lambda: HttpClient("https://x", max_batch_size=0), "max_batch_size is 0; it must be 1 or more"),
        ],
    )
    def test_what_cannot_be_one_is_told_at_once(self, make, words):
        """A wrong address, key or secret is found before anything is sent, and never repeated."""
        with pytest.raises(ValueError, match=words) as told:
            make()

        assert "two words" not in str(told.value)

    @pytest.mark.parametrize("host", ["\u2603.example", "xn--a"])
    def test_a_host_that_no_name_can_be(self, host):
        """What only the encoding of names finds is an exception of the client's too."""
        with HttpClient(f"https://{host}") as client:
            with pytest.raises(NotConfigured, match="a host that cannot be one"):
                client.embed_text("x")

    @pytest.mark.parametrize(
        "make",
        [
            lambda: HttpClient("http://x.example", token=KEY),
            lambda: HttpClient("http://x.example", token=KEY, secret=SECRET),
            lambda: HttpClient(f"http://user:{KEY}@x.example"),
            lambda: ServerlessClient("x1", KEY, api_url="http://x.example/v2"),
        ],
    )
    def test_no_key_goes_in_clear_text(self, make):
        """A token or key that others on the way could read is not sent; the message says what to do."""
        with pytest.raises(ValueError, match=r"is plain http, .* give an https:// address") as told:
            make()

        assert KEY not in str(told.value)

    @pytest.mark.parametrize(
        "make",
        [
            lambda: HttpClient("http://x.example", secret=SECRET),
            lambda: HttpClient("http://x.example"),
            lambda: HttpClient("http://[::1]:8000", token=KEY),
            lambda: HttpClient("https://x.example", token=KEY),
        ],
    )
    def test_signatures_go_in_clear_text(self, make):
        """What is signed, open, encrypted or at home may go."""
        make().close()

    @pytest.mark.parametrize(
        ("make", "words"),
        [
            (lambda: ServerlessClient("x1", None), "api_key must be a str, not NoneType; .* RUNPOD_API_KEY"),
            (lambda: ServerlessClient(None, KEY), "endpoint_id must be a str, .* RUNPOD_ENDPOINT_ID"),
            (lambda: ServerlessClient("x1", KEY, secret=b"s" * 32), "secret must be a str, not bytes"),
            (lambda: HttpClient(None), "base_url must be a str, not NoneType; .* CLIP_POD_BASE_URL"),
            (lambda: HttpClient("https://x", token=7), "token must be a str, not int; .* WORKER_TOKEN"),
        ],
    )
    def test_what_is_no_text_is_named(self, make, words):
        """An unset variable that became None is told by the argument and the variable."""
        with pytest.raises(TypeError, match=words):
            make()

    def test_space_around_a_key_is_dropped(self, script):
        """A key read from a file ends in a line feed."""
        with ServerlessClient("x1", f" {KEY}\n", api_url=f"{script.url}/v2/") as client:
            client.embed_text("x")

        assert script.asked[0].headers["Authorization"] == f"Bearer {KEY}"
