"""How many examples a property gets: Hypothesis' own 100, or those of a --hypothesis-profile.

signatures  32,000: four properties make 100,000 changes to what was signed, and some that change nothing
strangers   5,000, for everything that a stranger may send
mutants     the same few every time, and no shrinking: that a test fails is all there is to know
"""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings


LONG = {"deadline": None, "suppress_health_check": list(HealthCheck)}

settings.register_profile("signatures", max_examples=32_000, **LONG)
settings.register_profile("strangers", max_examples=5_000, **LONG)
settings.register_profile(
    "mutants",
    max_examples=50,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    **LONG,
)
