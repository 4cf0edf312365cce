"""The GPU job: data sets, losses, models, the loop, evaluation and export. No function imports any of it."""
