"""The trainings that made a bundle, by name."""
