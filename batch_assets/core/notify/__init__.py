"""Notifications about a pipeline: when they are due, what they contain, and how they are sent."""
