"""Read results tables into the frames of users."""
