"""Detectors by the names of their papers, under one contract."""
