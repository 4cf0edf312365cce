"""Folders of pictures, read as examples; and how an example becomes a training picture."""
