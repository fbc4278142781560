"""Encoders as a user would write them, good and bad, in a module that worker processes can import."""
