"""Writing a bundle: tensor by tensor, whole or not at all, verified."""
