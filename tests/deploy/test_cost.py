"""What a number of images costs."""

from __future__ import annotations

import pytest

from deploy.cost import Cost, price_range
from deploy.errors import DeployError


def test_reckons_time_and_money(deploy):
    """A million at 100 a second are 10,000 GPU seconds, whatever the number of workers."""
    line = "cost --images 1000000 --images-per-second 100 --price-per-hour 0.36-0.72 --workers 4"
    done = deploy.main(*line.split())

    assert done.out.splitlines() == [
        "images      1,000,000 at 100 a second and worker",
        "GPU time    10,000 s, 2.78 hours",
        "wall clock  0.69 hours with 4 worker(s)",
        "cost        1.00 to 2.00 at 0.36 to 0.72 an hour; starts and idle time come on top",
    ]


@pytest.mark.parametrize(("text", "prices"), [("0.5", (0.5, 0.5)), ("0.5-1", (0.5, 1.0)), ("0", (0.0, 0.0))])
def test_prices(text, prices):
    """A price is one number or two."""
    assert price_range(text) == prices
    assert Cost(1, 1.0, *prices).money()[0] == pytest.approx(prices[0] / 3600)


@pytest.mark.parametrize(
    ("numbers", "told"),
    [
        ((0, 1.0, 1.0, 1.0), "--images"),
        ((1, 0.0, 1.0, 1.0), "--images-per-second"),
        ((1, float("inf"), 1.0, 1.0), "--images-per-second"),
        ((1, 1.0, 2.0, 1.0), "--price-per-hour"),
        ((1, 1.0, -1.0, 1.0), "--price-per-hour"),
        ((1, 1.0, 1.0, 1.0, 0), "--workers"),
    ],
)
def test_what_makes_no_sense_is_refused(numbers, told):
    """The flag is named."""
    with pytest.raises(DeployError, match=told):
        Cost(*numbers)


@pytest.mark.parametrize("text", ["", "-1", "cheap", "1-", "nan"])
def test_prices_that_are_none(text):
    """What is no price is refused by the flag's name."""
    with pytest.raises(DeployError, match="--price-per-hour"):
        Cost(1, 1.0, *price_range(text))
