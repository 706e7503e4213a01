#include "sample.hpp"

#include <algorithm>

namespace {

using Blocks = picojson::array;

std::string block_name(const Json& block) { return "block" + std::to_string(number_at(block, "block")); }

Arrays with(Arrays context, const Arrays& more) {
  context.insert(more.begin(), more.end());
  return context;
}

// (B, T, D) from raster order into the block's order, or back.
mx::array turned(const mx::array& tokens, const Json& block) {
  if (!at(block, "flip").get<bool>()) return tokens;
  return mx::take(tokens, mx::arange(tokens.shape(1) - 1, -1, -1), 1);
}

mx::array columns(const mx::array& x, int begin, int end) {
  return mx::slice(x, {0, begin, 0}, {x.shape(0), end, x.shape(2)});
}

// Noise v (B, T, D) in the block's order -> its tokens, one after another.
mx::array solved(Export& model, const Json& block, const mx::array& v, const Arrays& context) {
  const std::string name = block_name(block);
  const int layers = number_at(block, "layers"), tokens = v.shape(1);
  std::vector<mx::array> keys, values, done;
  if (at(block, "begin").get<bool>()) {
    const auto made = model(name + ".begin", context);
    for (int j = 0; j < layers; j++) keys.push_back(made[2 * j]), values.push_back(made[2 * j + 1]);
  } else {
    const Json& cache = at(block, "cache");
    const auto shape = numbers_at(cache, "shape");
    for (auto* kept : {&keys, &values})
      for (int j = 0; j < layers; j++)
        kept->push_back(mx::zeros(mx::Shape(shape.begin(), shape.end()), dtype_named(text_at(cache, "dtype"))));
  }
  mx::array previous = mx::zeros({v.shape(0), 1, v.shape(2)});
  for (int t = 0; t < tokens; t++) {
    const mx::array number(t);
    auto hidden = model(name + ".step.start", with(context, {{"previous", previous}, {"t", number}}))[0];
    for (int j = 0; j < layers; j++) {
      auto out = model(name + ".step.layer" + std::to_string(j),
                       {{"hidden", hidden}, {"t", number}, {"keys", keys[j]}, {"values", values[j]}});
      hidden = out[0], keys[j] = out[1], values[j] = out[2];
    }
    const auto affine = model(name + ".step.finish", {{"hidden", hidden}, {"t", number}});
    previous = affine[0] * columns(v, t, t + 1) + affine[1];
    done.push_back(previous);
    std::vector<mx::array> pending = keys;
    pending.insert(pending.end(), values.begin(), values.end());
    pending.push_back(previous);
    mx::async_eval(pending);
  }
  return mx::concatenate(done, 1);
}

// The residual stream before every layer, and after the last.
std::vector<mx::array> through(
    Export& model, const Json& block, const std::string& what, const Arrays& given) {
  const std::string name = block_name(block) + "." + what;
  std::vector<mx::array> hidden = model(name + ".start", given);
  for (int j = 0; j < number_at(block, "layers"); j++) {
    hidden.push_back(model(name + ".layer" + std::to_string(j), {{"hidden", hidden.back()}})[0]);
    mx::eval(hidden.back());
  }
  return hidden;
}

double residual(
    Export& model, const Json& block, const mx::array& u, const mx::array& v, const Arrays& context) {
  const auto hidden = through(model, block, "certificate", with(context, {{"tokens", u}}));
  const auto affine = model(block_name(block) + ".certificate.finish", {{"hidden", hidden.back()}});
  return mx::max(mx::abs(affine[0] * v + affine[1] - u)).item<float>();
}

mx::array denoised(Export& model, const mx::array& latent, const Arrays& context) {
  const Json& settings = at(model.settings, "denoising");
  if (!at(settings, "method").is<std::string>()) return latent;
  if (text_at(settings, "method") == "learned")
    return model("denoise", with(context, {{"latent", latent}}))[0];
  struct Passed {
    const Json* block;
    mx::array u;
    std::vector<mx::array> hidden;
  };
  const Blocks& blocks = at(at(model.settings, "sampling"), "blocks").get<picojson::array>();
  std::vector<Passed> passed;
  mx::array u = model("layout.raw_tokens", {{"latent", latent}})[0];
  for (auto block = blocks.rbegin(); block != blocks.rend(); block++) {
    u = turned(u, *block);
    passed.push_back({&*block, u, through(model, *block, "forward", with(context, {{"tokens", u}}))});
    const auto v = model(block_name(*block) + ".forward.finish",
                         {{"hidden", passed.back().hidden.back()}, {"tokens", u}})[0];
    mx::eval(v);
    u = turned(v, *block);
  }
  mx::array slope = -u;  // of the logarithm of the prior
  while (!passed.empty()) {
    Passed& last = passed.back();
    const std::string name = block_name(*last.block) + ".backward";
    const auto end = model(name + ".finish", {{"hidden", last.hidden.back()},
                                              {"tokens", last.u},
                                              {"slope", turned(slope, *last.block)}});
    mx::array inner = end[0];
    const mx::array direct = end[1];
    for (int j = number_at(*last.block, "layers") - 1; j >= 0; j--) {
      last.hidden.pop_back();
      inner = model(name + ".layer" + std::to_string(j),
                    {{"hidden", last.hidden.back()}, {"slope", inner}})[0];
      mx::eval(inner, direct);
    }
    const auto out = model(name + ".start",
                           with(context, {{"tokens", last.u}, {"slope", inner}, {"direct", direct}}))[0];
    mx::eval(out);
    slope = turned(out, *last.block);
    passed.pop_back();
  }
  const double std = at(settings, "noise_std").get<double>();
  return latent + mx::array(static_cast<float>(std * std)) *
                      model("layout.latent", {{"tokens", slope}})[0];
}

// Blending weights (size,) of the tile that begins at starts[place].
mx::array ramp(size_t place, int size, const std::vector<int>& starts, int factor) {
  mx::array weight = mx::ones({size});
  const mx::array index = mx::arange(size) + mx::array(0.5f);
  const mx::array one(1.0f);
  if (place > 0) {
    const float shared = static_cast<float>((starts[place - 1] - starts[place]) * factor + size);
    weight = mx::minimum(weight, mx::minimum(index / mx::array(shared), one));
  }
  if (place + 1 < starts.size()) {
    const float shared = static_cast<float>((starts[place] - starts[place + 1]) * factor + size);
    weight = mx::minimum(
        weight, mx::minimum((mx::array(static_cast<float>(size)) - index) / mx::array(shared), one));
  }
  return weight;
}

mx::array in_tiles(Export& model, const mx::array& latent, const Json& settings) {
  const int factor = number_at(settings, "factor");
  const auto tile = numbers_at(settings, "tile");
  const auto rows = numbers_at(settings, "rows"), across = numbers_at(settings, "columns");
  const mx::array cells = model("decode.middle", {{"latent", latent}})[0];
  const int height = cells.shape(1) * factor, width = cells.shape(2) * factor;
  const int high = tile[0] * factor, wide = tile[1] * factor;
  mx::array total = mx::zeros({1, height, width, 3}), weights = mx::zeros({1, height, width, 1});
  for (size_t i = 0; i < rows.size(); i++)
    for (size_t j = 0; j < across.size(); j++) {
      const int y = rows[i], x = across[j];
      const auto part = mx::slice(cells, {0, y, x, 0}, {1, y + tile[0], x + tile[1], cells.shape(3)});
      const auto pixels = model("decode.upper", {{"cells", part}})[0];
      const auto weight = mx::reshape(mx::expand_dims(ramp(i, high, rows, factor), 1) *
                                          mx::expand_dims(ramp(j, wide, across, factor), 0),
                                      {1, high, wide, 1});
      const mx::Shape begin{0, y * factor, x * factor, 0};
      const auto add = [&](const mx::array& to, const mx::array& value) {
        const mx::Shape end{1, begin[1] + high, begin[2] + wide, to.shape(3)};
        return mx::slice_update(to, mx::slice(to, begin, end) + value, begin, end);
      };
      total = add(total, weight * pixels);
      weights = add(weights, weight);
      mx::eval(total, weights);
    }
  return total / weights;
}

mx::array decoded(Export& model, const mx::array& latent) {
  const Json& settings = at(model.settings, "decoder");
  const std::string kind = text_at(settings, "kind");
  if (kind == "pixels") return latent;
  if (kind == "whole") return model("decode", {{"latent", latent}})[0];
  std::vector<mx::array> pictures;
  for (const mx::array& one : mx::split(latent, latent.shape(0), 0))
    pictures.push_back(in_tiles(model, one, settings));
  return mx::concatenate(pictures, 0);
}

}  // namespace

Drawn draw(Export& model, const mx::array& noise, const Arrays& context, bool certify) {
  if (model.has("picture")) {
    const auto made = model("picture", with(context, {{"noise", noise}}));
    mx::eval(made);
    return {made[0], made[1], -1};
  }
  double worst = certify ? 0 : -1;
  mx::array u = model("layout.tokens", {{"noise", noise}})[0];
  for (const Json& block : at(at(model.settings, "sampling"), "blocks").get<picojson::array>()) {
    const mx::array v = turned(u, block), found = solved(model, block, v, context);
    if (certify) worst = std::max(worst, residual(model, block, found, v, context));
    u = turned(found, block);
    mx::eval(u);
  }
  const mx::array latent = model("layout.latent", {{"tokens", u}})[0];
  const mx::array picture = decoded(model, denoised(model, latent, context));
  mx::eval(picture, latent);
  return {picture, latent, worst};
}
