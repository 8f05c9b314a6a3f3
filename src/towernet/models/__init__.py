"""The networks: built-in, torchvision's classifiers, and timm's with the extra."""
