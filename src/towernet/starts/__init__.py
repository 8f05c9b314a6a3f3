"""Pre-trained weights: which there are, where they are on this machine, read and checked."""
