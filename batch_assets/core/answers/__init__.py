"""Answers -> typed columns."""
