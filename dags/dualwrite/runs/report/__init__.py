"""Reports of runs. `build` makes a reconciliation's, `alerts` says why it fails, `text` shows it to a person; `gap` does all
three for a backfill. The shapes are in model/run_report.py."""
