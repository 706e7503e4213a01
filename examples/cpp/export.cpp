#include "export.hpp"

#include <fstream>
#include <sstream>

#include "mlx/version.h"
#include "sha256.hpp"

namespace fs = std::filesystem;

namespace {

const std::string last_key = "\n  \"fingerprint\": \"";

std::string read_text(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::string shown(const mx::Shape& shape) {
  std::string text = "(";
  for (size_t i = 0; i < shape.size(); i++) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + ")";
}

}  // namespace

const Json& at(const Json& object, const std::string& key) {
  if (!object.is<picojson::object>() || !object.contains(key))
    throw Refused("export.json has no \"" + key + "\". Export the model again.");
  return object.get(key);
}

std::string text_at(const Json& object, const std::string& key) {
  const Json& value = at(object, key);
  if (!value.is<std::string>()) throw Refused("export.json: \"" + key + "\" is not a text.");
  return value.get<std::string>();
}

int number_at(const Json& object, const std::string& key) {
  const Json& value = at(object, key);
  if (!value.is<double>()) throw Refused("export.json: \"" + key + "\" is not a number.");
  return static_cast<int>(value.get<double>());
}

std::vector<int> numbers_at(const Json& object, const std::string& key) {
  const Json& value = at(object, key);
  if (!value.is<picojson::array>()) throw Refused("export.json: \"" + key + "\" is not a list.");
  std::vector<int> numbers;
  for (const Json& one : value.get<picojson::array>())
    numbers.push_back(static_cast<int>(one.get<double>()));
  return numbers;
}

mx::Dtype dtype_named(const std::string& name) {
  if (name == "float32") return mx::float32;
  if (name == "float16") return mx::float16;
  if (name == "bfloat16") return mx::bfloat16;
  if (name == "int32") return mx::int32;
  throw Refused("export.json names a dtype that this program does not know: " + name + ".");
}

Export::Export(const fs::path& directory) : directory(directory) {
  const fs::path path = directory / "export.json";
  const std::string where = path.string();
  if (!fs::is_regular_file(path)) throw Refused(where + " is missing: this folder is no export.");
  const std::string text = read_text(path);
  const std::string wrong = picojson::parse(settings, text);
  if (!wrong.empty()) throw Refused(where + " is not JSON (" + wrong + "). Export the model again.");
  if (!settings.is<picojson::object>() || !settings.contains("format") ||
      text_at(settings, "format") != "mlx-starflow export")
    throw Refused(where + " is not an export of mlx-starflow.");
  if (number_at(settings, "format_version") != 1)
    throw Refused(where + " has a format that this program does not know.");
  const size_t end = text.rfind(last_key);
  if (end == std::string::npos ||
      sha256_of_text(text.substr(0, end)) != text_at(settings, "fingerprint"))
    throw Refused(where + " was changed after it was written: its fingerprint is of other content. "
                          "Export the model again.");
  const std::string made = text_at(settings, "mlx_version"), here = mx::version();
  if (made != here)
    throw Refused(where + ": made with MLX " + made + ", but this program runs MLX " + here +
                  ", and the format of functions belongs to one version. Export the model again.");
  const std::string own = mx::default_device() == mx::Device::cpu ? "cpu" : "gpu";
  const std::string device = text_at(settings, "device");
  if (device != own)
    throw Refused(where + ": made for the device \"" + device + "\", but this program runs on the \"" +
                  own + "\". Export the model again.");
  check_files();
}

void Export::check_files() const {
  for (const auto& [name, entry] : at(settings, "files").get<picojson::object>()) {
    const fs::path path = directory / name;
    const std::string where = path.string();
    if (name.find("..") != std::string::npos || fs::path(name).is_absolute())
      throw Refused("export.json names a file outside of its folder: " + name + ".");
    if (!fs::is_regular_file(path)) throw Refused(where + " is missing. Export the model again.");
    const double bytes = static_cast<double>(fs::file_size(path));
    if (bytes != at(entry, "bytes").get<double>())
      throw Refused(where + " has another size than when it was written: it is incomplete or was "
                            "changed. Export the model again.");
    if (sha256_of_file(where) != text_at(entry, "sha256"))
      throw Refused(where + " was changed: its checksum is another one. Export the model again.");
  }
  for (const auto& [name, entry] : at(settings, "functions").get<picojson::object>())
    if (!at(settings, "files").contains(text_at(entry, "file")))  // its checksum was not compared
      throw Refused("export.json: the file of " + name + " is not among its files.");
}

bool Export::has(const std::string& function) const {
  return at(settings, "functions").contains(function);
}

std::vector<mx::array> Export::operator()(const std::string& function, const Arrays& given) {
  if (!has(function))
    throw Refused("This export has no function \"" + function + "\": it was made for something else.");
  const Json& entry = at(settings, "functions").get(function);
  mx::Kwargs inputs;
  for (const Json& input : at(entry, "inputs").get<picojson::array>()) {
    const std::string name = text_at(input, "name");
    if (!given.contains(name))
      throw Refused(function + " needs \"" + name + "\", which this export does not make.");
    const mx::array& value = given.at(name);
    const auto numbers = numbers_at(input, "shape");
    const mx::Shape shape(numbers.begin(), numbers.end());
    if (value.shape() != shape && !entry.contains("every_length"))
      throw Refused(name + " has shape " + shown(value.shape()) + "; this export takes " +
                    shown(shape) + ".");
    inputs.insert({function + "." + name, mx::astype(value, dtype_named(text_at(input, "dtype")))});
  }
  const std::string file = text_at(entry, "file");
  auto found = files_.find(file);
  if (found == files_.end())
    found = files_.emplace(file, mx::import_function((directory / file).string())).first;
  return found->second(inputs);
}
