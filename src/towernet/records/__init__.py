"""Frozen models of everything that is written and read: results, runs, protocols, ledgers."""
