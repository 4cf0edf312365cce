"""The networks: one backbone, and what stands on it."""
