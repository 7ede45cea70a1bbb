"""Measurements: ratios taken side by side in one run. Start them with `scripts/bench`."""
