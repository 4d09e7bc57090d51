"""The Message Batches API: the client, its errors, and the objects it answers with."""
