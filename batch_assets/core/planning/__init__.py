"""What happens next: read from the ledger, the same for sensor, run loop and status."""
