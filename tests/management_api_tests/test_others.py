"""Volumes, registry credentials and the catalog, over bare HTTP."""

from __future__ import annotations

import pytest

from tests.management_api_tests.wire import VOLUME


class TestVolumes:
    def test_live_and_die(self, wire, api):
        """A volume is created, found, renamed, enlarged and deleted."""
        volume = wire.send("POST", "network-volumes", VOLUME).json()
        path = f"network-volumes/{volume['id']}"

        assert VOLUME.items() <= volume.items()
        assert wire.send("GET", "network-volumes").json() == {"networkVolumes": [volume]}
        changed = wire.send("PATCH", path, {"name": "new", "size": 30}).json()
        assert changed == volume | {"name": "new", "size": 30}
        assert wire.send("DELETE", path).status_code == 204
        assert wire.send("GET", path).status_code == 404
        assert api.volumes == []

    @pytest.mark.parametrize(
        ("fields", "status"),
        [
            ({"size": 9}, 422),
            ({"size": 10}, 201),
            ({"size": 4096}, 201),
            ({"size": 4097}, 422),
            ({"type": "SLOW"}, 422),
            ({"region": "EU"}, 422),
            ({"dataCenter": "MOON-1"}, 400),
        ],
    )
    def test_are_bounded(self, wire, fields, status):
        """A volume has 10 to 4096 GB, a known tier and place, and nothing else."""
        assert wire.send("POST", "network-volumes", VOLUME | fields).status_code == status

    @pytest.mark.parametrize(("size", "status"), [(19, 400), (20, 200), (21, 200)])
    def test_never_shrink(self, wire, api, size, status):
        """A volume of 20 GB may stay or grow."""
        volume = api.add("POST /v2/network-volumes", VOLUME)

        assert wire.send("PATCH", f"network-volumes/{volume['id']}", {"size": size}).status_code == status

    def test_are_kept_while_in_use(self, wire, api):
        """A volume that an endpoint has is deleted only after it."""
        volume = api.add("POST /v2/network-volumes", VOLUME)["id"]
        endpoint = wire.create(networkVolumes=[volume]).json()["id"]

        assert wire.send("DELETE", f"network-volumes/{volume}").status_code == 400
        assert wire.send("DELETE", f"serverless/{endpoint}").status_code == 204
        assert wire.send("DELETE", f"network-volumes/{volume}").status_code == 204

    def test_names_may_be_shared(self, wire, api):
        """Two creates make two volumes of one name: the API does not keep anyone from it."""
        for _ in range(2):
            assert wire.send("POST", "network-volumes", VOLUME).status_code == 201

        assert [volume["name"] for volume in api.volumes] == ["weights", "weights"]


class TestRegistries:
    def test_never_tell_their_password(self, wire, api):
        """A credential is answered with id and name alone, and leaves its endpoints when deleted."""
        body = {"name": "private", "username": "u", "password": "p"}
        credential = wire.send("POST", "registries", body).json()
        wire.create(registry=credential["id"])

        assert credential.keys() == {"id", "name"}
        assert wire.send("GET", "registries").json() == {"registries": [credential]} != {"registries": []}
        assert wire.send("DELETE", f"registries/{credential['id']}").status_code == 204
        assert api.endpoints[0]["registry"] is None


class TestCatalog:
    @pytest.mark.parametrize(
        ("query", "status"),
        [("", 200), ("?include=AVAILABILITY", 400), ("?product=SERVERLESS", 400), ("?include=ALL", 422)],
    )
    def test_stock_needs_a_product(self, wire, query, status):
        """Availability is asked for together with a product, or not at all."""
        assert wire.send("GET", f"catalog/gpus{query}").status_code == status

    def test_names_pools_and_stock(self, wire):
        """GPU types name their pool, and their stock where it is asked for."""
        gpus = wire.send("GET", "catalog/gpus?include=AVAILABILITY&product=SERVERLESS").json()["gpus"]

        assert {"AMPERE_16", "ADA_24", "HOPPER_141"} <= {gpu["pool"] for gpu in gpus}
        assert all(gpu["cudaVersions"] for gpu in gpus)
        assert wire.send("GET", "catalog/gpus/NVIDIA H200").json()["pool"] == "HOPPER_141"
        assert wire.send("GET", "catalog/gpus/NVIDIA H900").status_code == 404

    def test_names_data_centers(self, wire):
        """Data centers are listed, and found by id."""
        places = wire.send("GET", "catalog/datacenters").json()["dataCenters"]

        assert "EU-RO-1" in [place["id"] for place in places]
        assert wire.send("GET", "catalog/datacenters/EU-RO-1").json() in places


@pytest.mark.parametrize("key", [None, "Bearer wrong", "management-key"])
def test_needs_the_key(wire, key):
    """Without the key as a bearer token every route answers 401."""
    del wire.session.headers["Authorization"]
    answer = wire.send("GET", "serverless", headers={"Authorization": key} if key else {})

    assert answer.status_code == 401
    assert "RateLimit" not in answer.headers


@pytest.mark.parametrize("path", ["serverless/x", "serverless/x/workers", "serverless/x/releases", "pods"])
def test_knows_only_what_it_has(wire, path):
    """An unknown id or route is 404."""
    assert wire.send("GET", path).status_code == 404
