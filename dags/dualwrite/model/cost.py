"""Pure: the price of Firestore's reads, in dollars."""

from __future__ import annotations

DOLLARS_PER_100_000_READS = 0.06
"""Google's list price of a document read beyond the free quota of 50,000 a day, Standard edition, US multi-region (nam5):
https://cloud.google.com/firestore/pricing. Other locations and contracts differ: change it here if yours does."""


def dollars(reads: int) -> str:
    """The price of reads, as "about $0.12" or "less than a cent"."""
    cost = reads * DOLLARS_PER_100_000_READS / 100_000
    return "less than a cent" if cost < 0.01 else f"about ${cost:,.2f}"


def amount(reads: int) -> str:
    """The price of reads, for a column of a table: "$0.12" or "<$0.01"."""
    cost = reads * DOLLARS_PER_100_000_READS / 100_000
    return "<$0.01" if cost < 0.01 else f"${cost:,.2f}"


def billed(reads: int) -> str:
    """The sentence that every report ends with."""
    return f"Billed reads: {reads:,} ({dollars(reads)} at ${DOLLARS_PER_100_000_READS} per 100,000, the list price of nam5)."
