"""Files under the root: request files, indexes and responses, and the outcomes of requests in them."""
