"""Folders that several files of tests share."""

from __future__ import annotations

import pytest

from tests.model.folders import TINY, write_folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """A folder of the smallest plain CLIP."""
    return write_folder(tmp_path_factory.mktemp("tiny") / "tiny", TINY)
