"""Pipeline files that are broken: what is known of them, and what they load as."""
