"""One process doing work: an ordered list of services around the consumer."""
