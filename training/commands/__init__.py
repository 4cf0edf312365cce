"""Commands of the training room, a file each; `magpie` loads one when it is run."""
