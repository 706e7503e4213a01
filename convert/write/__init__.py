"""Writing and verifying a bundle; the output appears only when it is complete."""
