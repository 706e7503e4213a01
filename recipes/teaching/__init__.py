"""How well `train` teaches: paintings in styles that the embedded model has never seen."""
