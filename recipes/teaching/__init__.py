"""Measurements of ``train`` on paintings in styles that the embedded model was not trained on."""
