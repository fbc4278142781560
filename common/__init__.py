"""What every party must agree on. Imports nothing of ours outside ``common`` and never touches the network."""

VERSION = "0.1.0"
