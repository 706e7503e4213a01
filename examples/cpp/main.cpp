// Draws pictures and computes likelihoods by an export of mlx-starflow, without Python.
#include <chrono>
#include <cstdio>
#include <iostream>
#include <optional>
#include <sstream>

#ifdef __linux__
#include <unistd.h>

#include <cstdlib>
#endif

#include "export.hpp"
#include "png.hpp"
#include "prompts.hpp"
#include "sample.hpp"

namespace {

const char* usage =
    "usage: starflow EXPORT [PROMPT] [options]\n"
    "  --seed N          seed of the noise (default 0); further pictures of a batch get N + 1 ...\n"
    "  --noise FILE      noise (B, h, w, c) from a .safetensors file instead\n"
    "  --ids N,N,...     token ids of the prompt, special tokens included, instead of its text\n"
    "  --tokenize        print the token ids of the prompt instead of drawing\n"
    "  --output FILE     the picture (default picture.png); a batch gets _2, _3 ...\n"
    "  --latent FILE     also write the sample before denoising, as .safetensors\n"
    "  --score FILE      print log p of a latent from a .safetensors file instead of drawing\n"
    "  --check           compare with the export's test vector instead of drawing\n"
    "  --no-certificate  step-wise exports: do not measure how exact the tokens are\n";

struct Options {
  std::string directory, prompt, noise, output = "picture.png", latent, score;
  std::optional<std::vector<int>> ids;
  uint64_t seed = 0;
  bool check = false, certify = true, tokenize = false;
};

std::vector<int> read_ids(const std::string& text) {
  std::vector<int> ids;
  std::istringstream parts(text);
  for (std::string part; std::getline(parts, part, ',');) ids.push_back(std::stoi(part));
  return ids;
}

Options read_options(int count, char** words) {
  Options options;
  int places = 0;
  for (int i = 1; i < count; i++) {
    const std::string word = words[i];
    const auto value = [&]() -> std::string {
      if (i + 1 == count) throw Refused(word + " needs a value.");
      return words[++i];
    };
    try {
      if (word == "--seed") options.seed = std::stoull(value());
      else if (word == "--noise") options.noise = value();
      else if (word == "--ids") options.ids = read_ids(value());
      else if (word == "--output") options.output = value();
      else if (word == "--latent") options.latent = value();
      else if (word == "--score") options.score = value();
      else if (word == "--tokenize") options.tokenize = true;
      else if (word == "--check") options.check = true;
      else if (word == "--no-certificate") options.certify = false;
      else if (word.starts_with("--")) throw Refused("There is no option " + word + ".\n" + usage);
      else if (places == 0) options.directory = word, places++;
      else if (places == 1) options.prompt = word, places++;
      else throw Refused("Put the prompt in quotation marks.");
    } catch (const std::logic_error&) {
      throw Refused(word + ": expected a whole number.");
    }
  }
  if (options.directory.empty()) throw Refused(usage);
  return options;
}

mx::array read_array(const std::string& path, const std::string& name) {
  const auto arrays = mx::load_safetensors(path).first;
  if (auto found = arrays.find(name); found != arrays.end()) return found->second;
  if (arrays.size() == 1) return arrays.begin()->second;
  throw Refused(path + " has no array \"" + name + "\".");
}

mx::array noise_of(const Export& model, const Options& options) {
  if (!options.noise.empty()) return read_array(options.noise, "noise");
  const auto shape = numbers_at(at(model.settings, "noise"), "shape");
  std::vector<mx::array> rows;  // one seed per picture, the noise of Python's seeds
  for (int i = 0; i < shape[0]; i++)
    rows.push_back(mx::random::normal({shape[1], shape[2], shape[3]}, mx::random::key(options.seed + i)));
  return mx::stack(rows, 0);
}

float difference(const mx::array& a, const mx::array& b) {
  return mx::max(mx::abs(a - b)).item<float>();
}

int check(Export& model) {
  const Json& test = at(model.settings, "test");
  const auto known = mx::load_safetensors((model.directory / text_at(test, "file")).string()).first;
  Arrays context;
  for (const char* name : {"caption", "null", "labels"})
    if (known.contains(name)) context.insert({name, known.at(name)});
  bool good = true;
  const auto report = [&](const char* what, const mx::array& found, float allowed) {
    if (!known.contains(what)) return;
    const float most = difference(found, known.at(what));
    std::printf("%s: largest difference %.3g, allowed %.3g\n", what, most, allowed);
    good = good && most <= allowed;
  };
  if (model.has("score")) {
    context.insert({"latent", known.at("noise")});
    const auto found = model("score", context)[0];
    report("log_prob", found, 1e-5f * mx::max(mx::abs(found)).item<float>());
  } else if (known.contains("latent")) {
    const Drawn drawn = draw(model, known.at("noise"), context, false);
    report("latent", drawn.latent, 1e-3f);
    report("picture", drawn.picture, 2.0f / 255);
  } else {
    std::printf("This export's test vector has no picture.\n");
  }
  return good ? 0 : 1;
}

std::string numbered(const std::string& path, int i) {
  if (i == 0) return path;
  const std::filesystem::path whole = path;
  const std::string name = whole.stem().string() + "_" + std::to_string(i + 1) + whole.extension().string();
  return (whole.parent_path() / name).string();
}

int run(const Options& options) {
  Export model(options.directory);
  if (options.check) return check(model);
  if (options.tokenize) {
    for (int id : tokenize(model, options.prompt)) std::printf("%d ", id);
    std::printf("\n");
    return 0;
  }
  const auto began = std::chrono::steady_clock::now();
  Arrays context = context_of(model, options.prompt, options.ids);
  if (!options.score.empty()) {
    context.insert({"latent", read_array(options.score, "latent")});
    const mx::array found = model("score", context)[0];
    mx::eval(found);
    for (size_t i = 0; i < found.size(); i++) std::printf("%.9g\n", found.data<float>()[i]);
    return 0;
  }
  const Drawn drawn = draw(model, noise_of(model, options), context, options.certify);
  if (!options.latent.empty()) mx::save_safetensors(options.latent, {{"latent", drawn.latent}});
  for (int i = 0; i < drawn.picture.shape(0); i++) {
    const std::string path = numbered(options.output, i);
    write_png(path, mx::take(drawn.picture, i, 0));
    std::cout << path << "\n";
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
  std::fprintf(stderr, "%.2f s", took.count());
  if (drawn.residual >= 0) std::fprintf(stderr, ", largest residual %.2g", drawn.residual);
  std::fprintf(stderr, "\n");
  return 0;
}

// OpenBLAS's threads wait for the next product in a busy loop, which slows a loop over tokens down.
// It reads the setting for how long when it is loaded, hence the second start.
void let_threads_sleep(char** words) {
#ifdef __linux__
  const char* name = "OPENBLAS_THREAD_TIMEOUT";
  if (getenv(name) == nullptr && setenv(name, "4", 0) == 0) execv("/proc/self/exe", words);
#else
  (void)words;
#endif
}

}  // namespace

int main(int count, char** words) {
  let_threads_sleep(words);
  try {
    return run(read_options(count, words));
  } catch (const std::exception& error) {
    std::cerr << "starflow: " << error.what() << "\n";
    return 1;
  }
}
