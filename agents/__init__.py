"""Second floor: agents as values, and the one training loop."""
