"""A module that stands in for another while something is imported that names it and never needs it here."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def stand_in(name: str, **content: Any) -> Iterator[None]:
    """Let what is imported inside find a module *name* that holds no more than *content*.

    Afterwards whoever imports *name* gets the real one; one that was imported before stays as it is.
    """
    module = ModuleType(name)
    vars(module).update(content)
    sys.modules.setdefault(name, module)
    try:
        yield
    finally:
        if sys.modules[name] is module:
            del sys.modules[name]
