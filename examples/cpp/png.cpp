#include "png.hpp"

#include <cmath>
#include <stdexcept>
#include <vector>

#include "mlx/mlx.h"
#define STB_IMAGE_WRITE_IMPLEMENTATION
#include "stb_image_write.h"

namespace mx = mlx::core;

void write_png(const std::filesystem::path& path, const mx::array& picture) {
  mx::array x = mx::contiguous(mx::astype(picture, mx::float32));
  mx::eval(x);
  std::vector<unsigned char> pixels(x.size());
  const float* values = x.data<float>();
  for (size_t i = 0; i < pixels.size(); i++) {
    if (!std::isfinite(values[i])) throw std::runtime_error("The picture holds NaN or infinity.");
    const float level = std::fmin(std::fmax((values[i] + 1) / 2, 0.0f), 1.0f);
    pixels[i] = static_cast<unsigned char>(std::nearbyint(255 * level));
  }
  std::filesystem::path partial = path;
  partial += ".part";
  const int width = x.shape(1), height = x.shape(0), channels = x.shape(2);
  if (!stbi_write_png(partial.c_str(), width, height, channels, pixels.data(), width * channels))
    throw std::runtime_error(path.string() + " cannot be written.");
  std::filesystem::rename(partial, path);
}
