"""torch, imported without what only its compiler asks for: a quarter of the time of `import torch`.

`torch._meta_registrations` tells of 1,300 operators what shape their results would have, for tensors without
data; it imports Python twins of half of torch to do so. Nothing that computes asks it, so it is left out
while torch is imported. Whatever compiles or exports models must import it first, as `fallback` does.
"""

from __future__ import annotations

import sys
from importlib import metadata
from typing import Final

from embedding.stand_in import stand_in


TORCH_VERSION: Final = "2.11."  # what this module was written and tested for
LEFT_OUT: Final = "torch._meta_registrations"


def import_torch() -> None:
    """Import torch; another version than TORCH_VERSION is imported as it is."""
    if "torch" in sys.modules or not metadata.version("torch").startswith(TORCH_VERSION):
        import torch  # noqa: PLC0415

        return
    with stand_in(LEFT_OUT):
        import torch  # noqa: PLC0415, F401
