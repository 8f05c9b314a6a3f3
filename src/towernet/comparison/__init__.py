"""Several networks under one protocol: plan, runs, results."""
