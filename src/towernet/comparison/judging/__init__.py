"""Judging: scores, statistics, calibration, doubtful labels, the learning curve."""
