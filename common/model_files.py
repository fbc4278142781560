"""The two files of a model, wherever they lie: parameters, and what they mean."""

WEIGHTS_FILE, METADATA_FILE = "model.safetensors", "model.json"
