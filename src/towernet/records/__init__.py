"""Everything that is written and read, as frozen models: results, runs, protocols, ledgers."""
