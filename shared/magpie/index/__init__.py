"""Nearest neighbours: the filter language, the engines, the objects that they hold."""
