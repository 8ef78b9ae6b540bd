"""What a training run leaves for people: one HTML page, the same as JSON, and a model card."""
