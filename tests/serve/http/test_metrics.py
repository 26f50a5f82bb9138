"""`/metrics`: counts that are exact, times that are plausible, labels that are few."""

from __future__ import annotations

import base64
import re
import socket
import time

import numpy as np
import pytest

from embedding.contract.requests import Item
from embedding.contract.responses import Embedded, Timings
from embedding.serve.access import Access
from embedding.serve.http.gate import Gate
from embedding.serve.http.service import Service
from tests.serve.http.local import local_service, post
from tests.serve.http.process import OPEN, serving
from tests.serve.http.scrapes import OPENMETRICS, samples, scrape, value


IMAGE, BATCH, TEXT = "/v1/embed/image", "/v1/embed/image-batch", "/v1/embed/text"
PLAIN = "text/plain; version=1.0.0; charset=utf-8"


@pytest.fixture(scope="module")
def counted(picture):
    """Return what the metrics of a fresh service said before and after a known series of requests."""
    with serving(OPEN) as service:
        client = service.client
        before = samples(client)
        inline = {"image_base64": base64.b64encode(picture).decode()}
        client.post(IMAGE, json=inline)
        client.post(IMAGE, content=b"GIF")
        client.post(TEXT, json={"text": "a red circle"})
        client.post(TEXT, json={"texts": ["a", "b", "c"]})
        client.post(TEXT, json={"txt": "a"})
        client.post(TEXT, content=b"{")
        client.post(BATCH, json={"items": [inline, {"text": "a"}, {"image_base64": "AAAA"}, {"nothing": 1}]})
        client.post(BATCH, json={"items": [{"text": "a"}] * 65})
        client.post("/v1/embeddings", json={"input": ["a", "b"]})
        client.post("/embeddings", json={"input": "a", "model": "another"})
        client.get("/v1/models")
        client.get("/health")
        yield before, samples(client)


class TestCounts:
    @pytest.mark.parametrize(
        ("action", "code", "status", "count"),
        [
            ("image", "OK", "200", 1),
            ("image", "DECODE_ERROR", "422", 1),
            ("text", "OK", "200", 2),
            ("text", "INVALID_INPUT", "422", 1),
            ("text", "INVALID_INPUT", "400", 1),
            ("batch", "OK", "200", 1),
            ("batch", "BATCH_TOO_LARGE", "413", 1),
            ("openai", "OK", "200", 1),
            ("openai", "MODEL_MISMATCH", "422", 1),
        ],
    )
    def test_requests(self, counted, action, code, status, count):
        """Each request counts once, by its route and its answer."""
        before, after = counted
        labels = {"action": action, "code": code, "status": status}

        assert value(before, "clip_requests_total", **labels) == 0
        assert value(after, "clip_requests_total", **labels) == count

    def test_nothing_else_is_a_request(self, counted):
        """Health checks, lists of models and scrapes do not count."""
        _, after = counted

        assert total(after, "clip_requests_total") == 10

    @pytest.mark.parametrize(
        ("kind", "code", "count"),
        [
            ("image", "OK", 2),
            ("image", "DECODE_ERROR", 2),
            ("text", "OK", 7),
            ("unread", "INVALID_INPUT", 1),
        ],
    )
    def test_items(self, counted, kind, code, count):
        """Each item of each accepted request counts once, by what became of it."""
        _, after = counted

        assert value(after, "clip_items_total", kind=kind, code=code) == count
        assert total(after, "clip_items_total") == 12

    def test_forwards(self, counted):
        """Each item that was embedded was in one forward; the buckets hold every forward."""
        before, after = counted
        for kind, count in (("image", 2), ("text", 7)):
            forwards = value(after, "clip_forward_items_count", kind=kind)
            assert value(before, "clip_forward_items_sum", kind=kind) == 0
            assert value(after, "clip_forward_items_sum", kind=kind) == count
            assert 1 <= forwards <= count
            assert value(after, "clip_forward_items_bucket", kind=kind, le="+Inf") == forwards
            assert value(after, "clip_forward_items_bucket", kind=kind, le="64.0") == forwards
        assert value(after, "clip_failed_forwards_total") == 0

    def test_nothing_is_held_at_the_end(self, counted):
        """Once all are answered nothing runs, waits or is held."""
        _, after = counted
        held = ("clip_requests_running", "clip_request_body_bytes", "clip_queue_items", "clip_decoding_items")

        assert [after[name, frozenset()] for name in held] == [0, 0, 0, 0]
        assert value(after, "clip_requests_running_limit") == 128
        assert value(after, "clip_queue_limit_items") == 1024

    def test_caller_who_hangs_up(self, client, service):
        """A caller who goes before his answer counts as such, under his route."""
        gone = {"action": "text", "code": "CLIENT_GONE", "status": "499"}
        before = value(samples(client), "clip_requests_total", **gone)
        port = int(service.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as caller:
            caller.sendall(b"POST /v1/embed/text HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n{")
        end_s = time.monotonic() + 10
        while value(samples(client), "clip_requests_total", **gone) == before and time.monotonic() < end_s:
            time.sleep(0.01)

        assert value(samples(client), "clip_requests_total", **gone) == before + 1


class TestTimes:
    @pytest.mark.parametrize("kind", ["image", "text"])
    def test_phases(self, counted, kind):
        """Every item embedded has a time in each phase, and no phase takes longer than the whole."""
        before, after = counted
        items = value(after, "clip_items_total", kind=kind, code="OK")
        sums = {}
        for phase in ("decode", "queue", "inference", "total"):
            labels = {"kind": kind, "phase": phase}
            assert value(before, "clip_item_phase_duration_seconds_count", **labels) == 0
            assert value(after, "clip_item_phase_duration_seconds_count", **labels) == items
            assert value(after, "clip_item_phase_duration_seconds_bucket", **labels, le="120.0") == items
            sums[phase] = value(after, "clip_item_phase_duration_seconds_sum", **labels)

        whole_s = sums.pop("total")
        assert all(took_s > 0 for took_s in sums.values())
        assert sum(sums.values()) <= whole_s < 30 * items

    def test_download_is_timed_where_there_was_one(self, counted):
        """A picture that came with its request adds nothing to the downloads."""
        _, after = counted
        labels = {"kind": "image", "phase": "download"}

        assert after["clip_item_phase_duration_seconds_count", frozenset(labels.items())] == 0

    @pytest.mark.parametrize(
        ("download_ms", "upper"), [(0.0, []), (0.999, ["0.001"]), (1.0, ["0.001"]), (1.001, ["0.002"])]
    )
    def test_download(self, download_ms, upper):
        """A download counts in the smallest bucket that it fits; one that was none counts nowhere."""
        item = Item(image_url="https://a.example/b.jpg")
        done = Embedded(None, True, np.zeros(1), Timings(download_ms, 5.0, 1.0, 9.0, 16.0))
        service = fresh_service()
        service.metrics.count_items([item], [done])
        text = service.metrics.write("")[0].decode()
        pattern = r'phase_duration_seconds_bucket\{kind="image",le="(.+)",phase="download"\} 1\.0'

        assert re.findall(pattern, text)[:1] == upper

    def test_requests(self, counted):
        """The time of each request that was answered well is kept, by its route."""
        _, after = counted
        for action, count in (("image", 1), ("text", 2), ("batch", 1), ("openai", 1)):
            assert value(after, "clip_request_duration_seconds_count", action=action) == count
            assert value(after, "clip_request_duration_seconds_sum", action=action) > 0

    def test_busy_lanes(self, counted, client):
        """Lanes were idle before the first item, and each was busy for no longer than the service has run."""
        before, after = counted
        busy_s = total(after, "clip_engine_busy_seconds_total")

        assert total(before, "clip_engine_busy_seconds_total") == 0
        assert 0 < busy_s < 2 * client.get("/health").json()["uptime_s"]


class TestState:
    def test_identity(self, client):
        """What is served stands in the labels of one metric."""
        about, health = client.get("/v1/ping").json(), client.get("/health").json()
        (family,) = [family for family in scrape(client) if family.name == "clip_build_info"]
        fields = ("model", "model_name", "pretrained", "device", "fingerprint")

        assert family.samples[0].labels == {
            "version": about["version"],
            **{field: health[field] for field in fields},
        }

    def test_ready(self, client):
        """A service that answers is ready, and nothing else."""
        assert states(client.get("/metrics").text) == {"ready"}

    @pytest.mark.parametrize(("is_draining", "state"), [(False, "loading"), (True, "draining")])
    def test_without_a_model(self, is_draining, state):
        """Before there is a model a scrape tells the state, the room and the version, and no engine."""
        service = fresh_service()
        service.is_draining = is_draining
        with service.gate.place(), service.gate.body() as body:
            body.add(b"abc")
            text = service.metrics.write("")[0].decode()

        assert states(text) == {state}
        assert {"clip_requests_running 1.0", "clip_request_body_bytes 3.0"} < set(text.splitlines())
        assert 'clip_build_info{version="' in text
        assert "clip_queue_items" not in text

    def test_memory_and_start(self, client):
        """The memory held is some of what there is; the start is a time of this century."""
        found = samples(client)

        assert 0 < total(found, "clip_device_memory_bytes") < value(found, "clip_device_memory_limit_bytes")
        assert value(found, "clip_process_start_time_seconds") > 1.7e9


def test_cache():
    """Where vectors are kept, hits and misses are counted, and what is kept is told; elsewhere nothing is."""
    service = local_service(cache_max_bytes=100_000)
    for text in ("a", "b", "a", "a"):
        post(service, TEXT, {"text": text})
    told = service.metrics.write("")[0].decode()
    found = dict(re.findall(r"^clip_cache_(\S+) (\S+)$", told, re.MULTILINE))

    assert found['lookups_total{result="hit"}'] == found['lookups_total{result="miss"}'] == "2.0"
    assert found["entries"] == "2.0"
    assert 0 < float(found["bytes"]) <= 100_000
    assert "clip_cache" not in local_service().metrics.write("")[0].decode()


class TestForm:
    @pytest.mark.parametrize(
        ("accept", "kind"),
        [
            ("", PLAIN),
            ("*/*", PLAIN),
            ("text/plain;version=x", PLAIN),
            ("application/openmetrics-text", f"{OPENMETRICS}; version=1.0.0; charset=utf-8"),
            (
                "application/openmetrics-text;version=9,*/*;q=0.1",
                f"{OPENMETRICS}; version=1.0.0; charset=utf-8",
            ),
            ("application/openmetrics-text;version=x", f"{OPENMETRICS}; version=1.0.0; charset=utf-8"),
        ],
    )
    def test_is_what_the_scraper_reads(self, client, accept, kind):
        """OpenMetrics for who asks for it, text for anyone else, whatever version they name."""
        assert client.get("/metrics", headers={"accept": accept}).headers["content-type"] == kind
        assert scrape(client, accept=accept)

    def test_names(self, client):
        """Every name has the one prefix and a help; counters end in _total."""
        for family in scrape(client, accept=OPENMETRICS):
            assert family.name.startswith("clip_")
            assert family.documentation
            if family.type == "counter":
                assert all(sample.name.endswith(("_total", "_created")) for sample in family.samples)

    def test_no_label_is_a_callers(self, client):
        """Whatever callers name, no new series comes of it."""
        odd = "zanzibar"
        for path in (TEXT, "/v1/embeddings", f"/v1/{odd}"):
            body = {"text": odd, "input": odd, "model": odd, "request_id": odd, "action": odd, odd: odd}
            client.post(path, json=body, params={odd: odd}, headers={"user-agent": odd})
        client.request(odd.upper(), TEXT)

        assert odd not in client.get("/metrics").text.lower()


def fresh_service():
    """Return a service that has no model yet."""
    gate = Gate(max_running=3, max_request_bytes=100)
    return Service(gate, Access())


def states(text):
    """Return the states that are 1."""
    return set(re.findall(r'^clip_state\{state="(\w+)"\} 1\.0$', text, re.MULTILINE))


def total(found, name):
    """Return the sum of all samples of *name*."""
    return sum(each for (of, _), each in found.items() if of == name)
