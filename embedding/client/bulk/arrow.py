"""pyarrow, imported when it is needed: reading and writing Parquet is all that needs it."""

from __future__ import annotations

import importlib
from typing import Any

from embedding.client.bulk.errors import BulkError


def arrow() -> Any:
    """Return pyarrow. Raises BulkError if it is not installed."""
    return _imported("pyarrow")


def parquet() -> Any:
    """Return pyarrow.parquet. Raises BulkError if it is not installed."""
    return _imported("pyarrow.parquet")


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise BulkError("pyarrow is not installed: pip install '.[bulk]', or pyarrow alone") from None
