"""The report of runs: one HTML page with learning curves, evaluations, samples and hyperparameters."""
