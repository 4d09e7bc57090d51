"""`batch-assets doctor` checks a deployment: one module for each concern, and each check is one line."""
