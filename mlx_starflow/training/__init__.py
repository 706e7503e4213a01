"""Teaching a flow on this machine: adapters, fine-tuning, and models from nothing."""
