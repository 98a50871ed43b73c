"""Which clips there are, their samples, and the order in which training hears them."""
