// An export of mlx-starflow: its settings, and its functions by name.
#pragma once

#include <filesystem>
#include <map>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

#include "mlx/mlx.h"
#include "picojson.h"

namespace mx = mlx::core;
using Arrays = std::unordered_map<std::string, mx::array>;
using Json = picojson::value;

// A sentence for the user.
struct Refused : std::runtime_error {
  using std::runtime_error::runtime_error;
};

const Json& at(const Json& object, const std::string& key);
std::string text_at(const Json& object, const std::string& key);
int number_at(const Json& object, const std::string& key);
std::vector<int> numbers_at(const Json& object, const std::string& key);
mx::Dtype dtype_named(const std::string& name);

class Export {
 public:
  // Reads export.json and compares format, fingerprint, version, device and the checksums of all
  // files. Throws Refused before anything is run.
  explicit Export(const std::filesystem::path& directory);

  bool has(const std::string& function) const;

  // The outputs of a function. `given` has at least its inputs. A function belongs to the thread
  // that first called it.
  std::vector<mx::array> operator()(const std::string& function, const Arrays& given);

  const std::filesystem::path directory;
  Json settings;

 private:
  void check_files() const;

  std::map<std::string, mx::ImportedFunction> files_;
};
