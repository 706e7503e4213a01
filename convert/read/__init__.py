"""Reading checkpoints without PyTorch; all sizes in a file are checked against limits."""
