"""One customer's ranking, fitted on its own graded queries with a bundle's own models."""
