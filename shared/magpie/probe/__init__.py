"""The recall probe: a sample of live searches is answered exactly as well, off the request path."""
