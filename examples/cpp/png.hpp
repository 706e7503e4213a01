// Pictures as PNG files.
#pragma once

#include <filesystem>

#include "mlx/mlx.h"

// Writes one picture (H, W, C) in [-1, 1], C being 3 or 1. The file appears when it is complete.
void write_png(const std::filesystem::path& path, const mlx::core::array& picture);
