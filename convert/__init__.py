"""The converter: reads PyTorch checkpoints without PyTorch and writes them as bundles."""
