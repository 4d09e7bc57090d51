"""Price lists, and what answers cost by them."""
