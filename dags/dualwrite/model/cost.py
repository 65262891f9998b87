"""Pure: what Firestore's reads cost, in dollars."""

from __future__ import annotations

DOLLARS_PER_100_000_READS = 0.06
"""Google's list price of a document read, Standard edition, multi-region nam5 (United States), beyond the free quota of
50,000 reads a day: https://cloud.google.com/firestore/pricing, looked up in November 2026. Single regions cost less or
as much; where yours differs, change it here."""


def dollars(reads: int) -> str:
    """What so many reads cost, as "about $0.12" or "less than a cent"."""
    cost = reads * DOLLARS_PER_100_000_READS / 100_000
    return "less than a cent" if cost < 0.01 else f"about ${cost:,.2f}"


def amount(reads: int) -> str:
    """What so many reads cost, for a column of a table: "$0.0006"."""
    return f"${reads * DOLLARS_PER_100_000_READS / 100_000:,.4f}"


def billed(reads: int) -> str:
    """The sentence that every report ends with."""
    return f"Billed reads: {reads:,} ({dollars(reads)} at ${DOLLARS_PER_100_000_READS} per 100,000 reads, list price of nam5)."
