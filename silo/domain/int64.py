"""Arithmetic that ends in 64-bit integers, as the existing servers of this protocol do it.

Nothing here refuses a number: what lies beyond 64 bits becomes the nearest integer within.
"""

from __future__ import annotations

import math

INT64_MIN = -(1 << 63)
INT64_MAX = (1 << 63) - 1


def saturated(number: int) -> int:
    """The nearest integer of 64 bits."""
    return max(INT64_MIN, min(number, INT64_MAX))


def rounded(number: float) -> int:
    """The nearest integer of 64 bits, halves away from zero; 0 for NaN."""
    if math.isnan(number):
        return 0
    if math.isinf(number):
        return INT64_MAX if number > 0 else INT64_MIN

    # Not floor(number + 0.5): that sum is itself rounded, and makes 1 of the largest double below 0.5.
    whole = math.trunc(number)
    if abs(number - whole) >= 0.5:
        whole += 1 if number > 0 else -1
    return saturated(whole)


def power(base: float, exponent: int) -> float:
    """`base ** exponent`, infinite where Python raises instead."""
    try:
        return math.pow(base, exponent)
    except OverflowError:
        return -math.inf if base < 0 and exponent % 2 else math.inf
