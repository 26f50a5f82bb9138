"""`apply` against the loopback management API: what is created, changed and left alone, whatever happens."""

from __future__ import annotations

import pytest


class TestCreate:
    def test_creates(self, deploy, api, worker):
        """The first apply."""
        done = deploy.apply()
        print(done.all)
        assert done.status == 0
        done = deploy.apply()
        print(done.all)
        done = deploy.apply("--image", "docker.io/you/worker:2@sha256:" + "2" * 64)
        print(done.all)
        done = deploy("rollback", "--yes")
        print(done.all)
        done = deploy("status")
        print(done.all)
        done = deploy("destroy", "--yes")
        print(done.all)
        assert 0
