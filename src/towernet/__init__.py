"""Train and compare small image classifiers from scratch, honestly, on your own pictures."""

__version__ = "0.1.0"
