"""Losses, a file each, named as the papers name them."""
