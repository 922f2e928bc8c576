"""The plan a customer is on, from what they pay, and the queue priority it buys."""

from decimal import Decimal
from enum import StrEnum


class Plan(StrEnum):
    """A customer's plan; the bands are half-open, so no price falls between two plans."""

    PREMIUM = "PREMIUM"
    PRO = "PRO"
    BASIC = "BASIC"

    @property
    def priority(self) -> int:
        """BullMQ priority of this plan's jobs: the lower number runs first."""
        return _PRIORITY[self]


_PRIORITY = {Plan.PREMIUM: 1, Plan.PRO: 3, Plan.BASIC: 5}


def plan_for(monthly_price: Decimal) -> Plan:
    """Premium from $100 a month, Pro from $50, Basic below.

    Raises:
        ValueError: the price is negative.
    """
    if monthly_price < 0:
        raise ValueError(f"a monthly price cannot be negative: {monthly_price}")
    if monthly_price >= 100:
        return Plan.PREMIUM
    if monthly_price >= 50:
        return Plan.PRO
    return Plan.BASIC
