"""Where a trained network looks: the attention maps of its blocks, drawn over an image."""
