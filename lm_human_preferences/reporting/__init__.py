"""The report of runs: their event files as curves, and one HTML page of all that is known of them."""
