"""Jobs: what they do, who works them off, and what is told of them."""
