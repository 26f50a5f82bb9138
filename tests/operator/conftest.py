"""What the tests of models share."""

from __future__ import annotations

from tests.model.conftest import no_network, tiny_models


__all__ = ["no_network", "tiny_models"]
