"""The servicers: each translates one contract into calls of the library."""
