"""Creating, changing and deleting endpoints, over bare HTTP."""

from __future__ import annotations

import pytest

from tests.management_api import ManagementApi
from tests.management_api_tests.wire import ENDPOINT, VOLUME, Wire


BY_REQUESTS = {"type": "REQUEST_COUNT", "requestCount": 4}
BY_DELAY = {"type": "QUEUE_DELAY", "queueDelay": 4}


class TestCreate:
    def test_fills_in_defaults(self, wire, api):
        """What a create leaves out has the API's defaults: no flashboot, no execution timeout, 20 GB."""
        answer = wire.create()
        endpoint = answer.json()

        assert answer.status_code == 201
        assert {"flashboot": "OFF", "timeout": 0, "disk": 20, "env": {}}.items() <= endpoint.items()
        assert endpoint["workers"] == {"min": 0, "max": 3, "idleTimeout": 10}
        gpu = {"pools": ["AMPERE_16"], "count": 1, "allowedCudaVersions": [], "minCudaVersion": None}
        assert endpoint["gpu"] == gpu
        assert api.endpoints == [endpoint]
        assert wire.send("GET", f"serverless/{endpoint['id']}").json() == endpoint
        assert wire.send("GET", "serverless").json() == {"endpoints": [endpoint]}

    @pytest.mark.parametrize(
        ("fields", "status", "says"),
        [
            ({"gpuIds": "A4000"}, 422, "gpuIds"),
            ({"name": None}, 422, "name"),
            ({"image": None}, 422, "image"),
            ({"type": None}, 422, "type"),
            ({"type": "POD"}, 422, "$.type"),
            ({"env": {"A": 1}}, 422, "$.env.A"),
            ({"workers": {"idleTimeout": 3601}}, 422, "$.workers.idleTimeout"),
            ({"workers": {"min": 4}}, 422, "$.workers.min"),
            ({"gpu": {"pools": ["AMPERE_16"], "type": "x"}}, 422, "$.gpu"),
            ({"gpu": {"pools": []}}, 422, "$.gpu.pools"),
            ({"flashboot": True}, 422, "$.flashboot"),
            ({"scaling": {"type": "QUEUE_DELAY", "requestCount": 4}}, 422, "$.scaling"),
            ({"type": "LOAD_BALANCER"}, 422, "$.scaling"),
            ({"scaling": BY_REQUESTS, "workers": {"idleTimeout": 5}}, 422, "$.workers.idleTimeout"),
            ({"gpu": None, "cpu": [{"id": "cpu5c", "vcpuCount": 6}]}, 422, "power of two"),
            ({"gpu": None}, 400, "exactly one of gpu or cpu"),
            ({"cpu": [{"id": "cpu5c", "vcpuCount": 4}]}, 400, "exactly one of gpu or cpu"),
            ({"gpu": {"pools": ["RTX_4090"]}}, 400, "RTX_4090"),
            ({"gpu": {"pools": ["ADA_24"], "excludedTypes": ["NVIDIA L40"]}}, 400, "NVIDIA L40"),
            ({"gpu": {"pools": ["ADA_24"], "excludedTypes": ["NVIDIA GeForce RTX 4090"]}}, 400, "no GPU"),
            (
                {"gpu": {"pools": ["ADA_24"], "allowedCudaVersions": ["12.8"], "minCudaVersion": "12.4"}},
                400,
                "mutually exclusive",
            ),
            ({"networkVolumes": ["gone"]}, 404, "network volume"),
            ({"registry": "gone"}, 404, "registry"),
            ({"templateId": "gone", "image": None}, 404, "template"),
        ],
    )
    def test_refuses(self, wire, api, fields, status, says):
        """A create that the document rules out is refused with a problem that names what is wrong."""
        answer = wire.create(**fields)
        problem = answer.json()

        assert answer.status_code == problem["status"] == status
        assert answer.headers["Content-Type"].startswith("application/problem+json")
        assert problem["title"] and says in " ".join([problem["detail"], *problem.get("errors", [])])
        assert api.endpoints == []
        assert [request.is_refused for request in api.changes] == [True]

    def test_refuses_what_is_not_json(self, wire):
        """A body that is not JSON is malformed, not invalid."""
        answer = wire.session.post(f"{wire.api.url}/serverless", data=b"{", timeout=10)

        assert answer.status_code == 400

    def test_a_cpu_endpoint_tells_its_memory(self, wire):
        """Memory follows the flavor; there is no gpu in the answer."""
        endpoint = wire.create(gpu=None, cpu=[{"id": "cpu5c", "vcpuCount": 4}]).json()

        assert endpoint["cpu"] == [{"id": "cpu5c", "vcpuCount": 4, "memory": 8}]
        assert "gpu" not in endpoint

    def test_a_volume_elsewhere_is_refused(self, wire, api):
        """An endpoint cannot run outside the data center of its volume."""
        volume = api.add("POST /v2/network-volumes", VOLUME)["id"]

        assert wire.create(networkVolumes=[volume], dataCenterIds=["US-KS-2"]).status_code == 400
        assert wire.create(networkVolumes=[volume], dataCenterIds=["EU-RO-1"]).status_code == 201

    @pytest.mark.parametrize(
        ("fields", "name", "url"),
        [
            ({}, "run", "http://127.0.0.1:9/v2/loopback/run"),
            ({}, "runSync", "http://127.0.0.1:9/v2/loopback/runsync"),
            ({}, "status", "http://127.0.0.1:9/v2/loopback/status/{job_id}"),
            ({"type": "LOAD_BALANCER", "scaling": BY_REQUESTS}, "base", "http://127.0.0.1:9/v2/loopback"),
        ],
    )
    def test_addresses_lead_to_the_jobs(self, fields, name, url):
        """The request addresses of an endpoint are below the address that was given."""
        with ManagementApi(job_url="http://127.0.0.1:9/v2/loopback") as api:
            assert api.add("POST /v2/serverless", ENDPOINT | fields)["requestUrls"][name] == url


class TestPatch:
    @pytest.mark.parametrize(
        ("before", "body", "after"),
        [
            ({"env": {"A": "1", "B": "2"}}, {"env": {"A": "3"}}, {"env": {"A": "3"}}),
            ({"workers": {"min": 0, "max": 5}}, {"workers": {"min": 1}}, {"workers": [1, 5, 10]}),
            ({"timeout": 600_000}, {"image": "org/clip:2"}, {"image": "org/clip:2", "timeout": 600_000}),
            ({"flashboot": "FLASHBOOT"}, {"name": "other"}, {"flashboot": "FLASHBOOT"}),
            ({"registry": None}, {"ports": ["80/http"]}, {"ports": ["80/http"]}),
        ],
    )
    def test_changes_what_is_given(self, wire, api, before, body, after):
        """Only fields in the body change: env as a whole, workers by key."""
        wire.create(**before)
        answer = wire.patch(**body)
        endpoint = answer.json() | {"workers": list(answer.json()["workers"].values())}

        assert answer.status_code == 200
        assert after.items() <= endpoint.items()
        assert api.endpoints == [answer.json()]

    @pytest.mark.parametrize(
        ("gpu", "pools", "excluded"),
        [
            ({"pools": ["AMPERE_24"]}, ["AMPERE_24"], None),
            ({"pools": ["AMPERE_24"], "excludedTypes": [" NVIDIA L4"]}, ["AMPERE_24"], ["NVIDIA L4"]),
            ({"minCudaVersion": "12.4"}, ["AMPERE_16"], ["NVIDIA RTX A4500"]),
        ],
    )
    def test_pools_and_exclusions_are_one_selection(self, wire, gpu, pools, excluded):
        """Pools without exclusions clear these; a change of neither leaves both."""
        wire.create(gpu={"pools": ["AMPERE_16"], "excludedTypes": ["NVIDIA RTX A4500"]})
        after = wire.patch(gpu=gpu).json()["gpu"]

        assert after["pools"] == pools
        assert after.get("excludedTypes") == excluded

    @pytest.mark.parametrize(
        ("fields", "body", "status"),
        [
            ({}, {"type": "LOAD_BALANCER"}, 422),
            ({}, {"gpu": {"excludedTypes": ["NVIDIA RTX A4500"]}}, 422),
            ({}, {"cpu": [{"id": "cpu5c", "vcpuCount": 4}]}, 400),
            ({}, {"gpu": {"count": 1}, "cpu": [{"id": "cpu5c", "vcpuCount": 4}]}, 400),
            ({}, {"gpu": {"allowedCudaVersions": ["12.8"]}}, 200),
            ({}, {"workers": {"min": 4}}, 422),
            ({"scaling": BY_REQUESTS}, {"workers": {"idleTimeout": 5}}, 422),
            ({"scaling": BY_REQUESTS}, {"workers": {"idleTimeout": 5}, "scaling": BY_DELAY}, 200),
            ({"scaling": BY_REQUESTS, "type": "LOAD_BALANCER"}, {"workers": {"idleTimeout": 5}}, 200),
            ({"scaling": BY_REQUESTS, "type": "LOAD_BALANCER"}, {"scaling": BY_DELAY}, 422),
            ({"gpu": {"pools": ["ADA_24"], "minCudaVersion": "12.4"}}, {"gpu": {"minCudaVersion": ""}}, 200),
            (
                {"gpu": {"pools": ["ADA_24"], "minCudaVersion": "12.4"}},
                {"gpu": {"allowedCudaVersions": ["12.8"]}},
                400,
            ),
            (
                {"gpu": {"pools": ["ADA_24"], "minCudaVersion": "12.4"}},
                {"gpu": {"allowedCudaVersions": ["12.8"], "minCudaVersion": ""}},
                200,
            ),
        ],
    )
    def test_keeps_to_the_rules(self, wire, api, fields, body, status):
        """What the endpoint would become is judged, not the body alone; a refusal changes nothing."""
        before = wire.create(**fields).json()

        assert wire.patch(**body).status_code == status
        assert (api.endpoints == [before]) == (status != 200)

    def test_scaling_on_requests_has_no_idle_timeout(self, wire):
        """A queue endpoint that scales on requests is answered without the idle timeout."""
        wire.create()

        assert wire.patch(scaling=BY_REQUESTS).json()["workers"] == {"min": 0, "max": 3}
        assert wire.patch(scaling=BY_DELAY).json()["workers"] == {"min": 0, "max": 3, "idleTimeout": 10}


class TestQuota:
    @pytest.mark.parametrize(("max_workers", "status"), [(2, 201), (3, 400)])
    def test_counts_all_endpoints(self, max_workers, status):
        """The workers of all endpoints together may reach the quota, not pass it."""
        with ManagementApi(workers_quota=5) as api:
            wire = Wire(api)
            with wire.session:
                wire.create()
                answer = wire.create(name="other", workers={"max": max_workers})

        assert answer.status_code == status
        if status == 400:
            assert "workers quota (5)" in answer.json()["detail"]
            assert answer.json()["detail"].endswith("at most 2.")

    def test_a_change_counts_as_well(self):
        """An endpoint's own workers are not counted twice when they change."""
        with ManagementApi(workers_quota=5) as api:
            wire = Wire(api)
            with wire.session:
                wire.create()

                assert wire.patch(workers={"max": 5}).status_code == 200
                assert wire.patch(workers={"max": 6}).status_code == 400
