"""The site's half of each task: what it computes from its own consumers, and what of it may leave."""
