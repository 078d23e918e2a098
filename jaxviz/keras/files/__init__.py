"""What a file holds: archives, shards, weights, and those of other frameworks."""
