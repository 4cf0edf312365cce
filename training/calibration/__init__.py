"""From a similarity to the probability that a hit is the same product."""
