// The loops of a step-wise export: over blocks, tokens and layers, and over tiles.
#pragma once

#include "export.hpp"

struct Drawn {
  mx::array picture;  // (B, H, W, C) in about [-1, 1]
  mx::array latent;   // (B, h, w, c) before denoising
  double residual;    // max |sigma v + b - u| of a parallel pass over all blocks; -1: not measured
};

// Pictures from standard normal noise (B, h, w, c). `certify`: measure the residual (step-wise
// exports only).
Drawn draw(Export& model, const mx::array& noise, const Arrays& context, bool certify);
