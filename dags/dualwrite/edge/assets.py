"""What a green reconciliation tells other DAGs."""

from __future__ import annotations

from airflow.sdk import Asset, AssetAlias

PARITY = Asset("dual-write-parity")
"""Source and target are equal, as far as every look goes: nothing is open, excused or not, and all was compared."""

PARITY_IF_EQUAL = AssetAlias("dual-write-parity-if-equal")
"""Through which a task updates PARITY: an outlet that is an asset itself is updated whenever its task succeeds."""

GREEN = Asset("dual-write-green")
"""A reconciliation ended green: what differs, if anything, is excused, in flight or expected."""
