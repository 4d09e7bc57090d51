"""The Message Batches API: the client, its errors, and the objects that the API returns."""
