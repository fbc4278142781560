"""Cryptography, randomness and identities: the only package that imports ``cryptography``."""
