"""What every contender asks: the same model and the same prompt."""

MODEL = "claude-haiku-5-5"
MAX_TOKENS = 300
SYSTEM = "You sum up customer messages for a support team. Answer with one short English sentence."
USER_TEMPLATE = "Sum up this message in one sentence.\n\n{{ text }}"
"""The user message, as a Jinja template over a row."""

POLL_SECONDS = 0.05
