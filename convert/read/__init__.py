"""Reading checkpoints without PyTorch, with limits on everything a file claims."""
