"""A site's own data on top of the shared model: fine-tuning, own counts, own trees. Nothing made here leaves the site."""
