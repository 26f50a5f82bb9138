"""A fake model, fake downloads, and a pipeline over them that keeps vectors."""

from __future__ import annotations

import pytest

from tests.cache.known import downloads, pipeline_of
from tests.fakes import FakeModel


@pytest.fixture
def model():
    """Return a fake model."""
    return FakeModel()


@pytest.fixture
def fetcher():
    """Return the fake fetcher."""
    return downloads()


@pytest.fixture
def pipeline(model, fetcher):
    """Return a pipeline that keeps vectors."""
    return pipeline_of(model, fetcher)
