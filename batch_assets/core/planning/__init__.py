"""Determine from the ledger what happens next. Sensor, run loop and `status` use the same answer."""
