"""The assets with which a green reconciliation triggers other DAGs."""

from __future__ import annotations

from airflow.sdk import Asset, AssetAlias

from dualwrite.settings import named

PARITY = Asset(named("dual-write-parity"))
"""Source and target are equal: nothing is open, excused or not, and everything was compared."""

PARITY_IF_EQUAL = AssetAlias(named("dual-write-parity-if-equal"))
"""A task updates PARITY through this alias: a plain outlet would be updated whenever its task succeeds."""

GREEN = Asset(named("dual-write-green"))
"""A reconciliation that compared ended green: all differences, if any, are excused, in flight or expected."""

GREEN_IF_COMPARED = AssetAlias(named("dual-write-green-if-compared"))
"""A task updates GREEN through this alias: an excuse, a repair by key and an undo compare nothing, so they prove nothing."""
