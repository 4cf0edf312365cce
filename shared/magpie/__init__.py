"""Magpie: visual product search that a shop runs in its own AWS account."""
