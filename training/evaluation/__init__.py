"""How good a bundle is: measured, reported, compared."""
