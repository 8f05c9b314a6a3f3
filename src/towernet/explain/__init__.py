"""The attention maps of a trained network, drawn over an image."""
