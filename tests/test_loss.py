"""Losses and distances: the contract of every operation, the corners, and wrong arguments."""

from __future__ import annotations

from tests.cases.loss import ROWS
from tests.harness import every_check


@every_check(ROWS)
def test_row(check, row):
    check(row)
