"""The networks: our own, torchvision's classifiers, and timm's with the extra."""
