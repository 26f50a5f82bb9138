"""What tests of bulk runs leave as they found it."""

from __future__ import annotations

import csv

import pytest


@pytest.fixture(autouse=True)
def cell_limit():
    """The csv module's limit is the whole process's, and some tests make it small."""
    before = csv.field_size_limit()
    yield
    csv.field_size_limit(before)
