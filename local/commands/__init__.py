"""The commands of `magpie`, one a file."""
