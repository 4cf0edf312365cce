"""How good a ranking is: recall@k, nDCG, MRR."""
