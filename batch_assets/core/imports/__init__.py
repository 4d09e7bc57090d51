"""Answers that were paid for elsewhere, stored as if they were ours."""
