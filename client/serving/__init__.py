"""The model at work: events come one at a time, answers leave at once. Nothing leaves the site."""
