#include "prompts.hpp"

#include <algorithm>
#include <cctype>
#include <fstream>
#include <regex>

namespace {

bool is_word(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; }
bool is_space(char c) { return std::isspace(static_cast<unsigned char>(c)); }

// Runs of letters, digits and underscores, and runs of other visible characters.
std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> words;
  for (size_t i = 0; i < text.size();) {
    if (is_space(text[i])) {
      i++;
      continue;
    }
    const size_t begin = i;
    const bool word = is_word(text[i]);
    while (i < text.size() && !is_space(text[i]) && is_word(text[i]) == word) i++;
    words.push_back(text.substr(begin, i - begin));
  }
  return words;
}

Json read_tokenizer(const Export& model) {
  const Json& text = at(model.settings, "text");
  if (!text.is<picojson::object>() || !text.contains("tokenizer"))
    throw Refused("This model has no tokenizer.");
  const std::string name = text_at(text, "tokenizer");
  std::ifstream file(model.directory / name);
  Json tokenizer;
  const std::string wrong = picojson::parse(tokenizer, file);
  if (!wrong.empty()) throw Refused(name + " is not JSON (" + wrong + ").");
  const Json& splitter = at(tokenizer, "pre_tokenizer");
  const bool whitespace =
      splitter.is<picojson::object>() && text_at(splitter, "type") == "Whitespace";
  if (text_at(at(tokenizer, "model"), "type") != "WordLevel" || !whitespace)
    throw Refused("This program's tokenizer is a list of words, and the model's is not. Give the "
                  "token ids with --ids.");
  return tokenizer;
}

std::string replaced(const std::string& text, const Json& pattern, const std::string& content) {
  std::string format;  // in which $ has a meaning
  for (char c : content) format += c == '$' ? "$$" : std::string(1, c);
  if (pattern.contains("Regex"))
    return std::regex_replace(text, std::regex(text_at(pattern, "Regex")), format);
  const std::string exact = text_at(pattern, "String");
  std::string result = text;
  for (size_t i = 0; !exact.empty() && (i = result.find(exact, i)) != std::string::npos;
       i += content.size())
    result.replace(i, exact.size(), content);
  return result;
}

// ASCII text through the tokenizer's normalizers. Those of Unicode do not change it.
std::string normalized(std::string text, const Json& step) {
  if (!step.is<picojson::object>()) return text;
  const std::string type = text_at(step, "type");
  if (type == "Sequence") {
    for (const Json& one : at(step, "normalizers").get<picojson::array>())
      text = normalized(text, one);
  } else if (type == "Lowercase") {
    for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  } else if (type == "Replace") {
    text = replaced(text, at(step, "pattern"), text_at(step, "content"));
  } else if (type != "NFKC" && type != "NFC" && type != "NFKD" && type != "NFD") {
    throw Refused("This program does not know the normalizer " + type + " of the model's "
                  "tokenizer. Give the token ids with --ids.");
  }
  return text;
}

int class_of(const std::string& name, const Json* names, int classes) {
  if (name.empty()) return -1;
  if (names != nullptr) {
    const auto& known = names->get<picojson::array>();
    for (size_t i = 0; i < known.size(); i++)
      if (known[i].get<std::string>() == name) return static_cast<int>(i);
  }
  const bool number = name.size() < 10 && std::all_of(name.begin(), name.end(), [](char c) {
                        return std::isdigit(static_cast<unsigned char>(c));
                      });
  if (number && std::stoi(name) < classes) return std::stoi(name);
  throw Refused("\"" + name + "\" is not a class of this model: give a name or a number below " +
                std::to_string(classes) + ".");
}

// Text features (1, L, D) of token ids, or of a class.
mx::array features(Export& model, const std::vector<int>& ids) {
  const Json& text = at(model.settings, "text");
  const int length = number_at(text, "length"), channels = number_at(text, "channels");
  if (ids.empty()) return mx::zeros({1, length, channels});
  if (ids.size() > static_cast<size_t>(length))
    throw Refused("The model reads at most " + std::to_string(length) + " token ids.");
  const mx::array given(ids.data(), {static_cast<int>(ids.size())}, mx::int32);
  return mx::expand_dims(model("text", {{"ids", given}})[0], 0);
}

}  // namespace

std::vector<int> tokenize(const Export& model, const std::string& prompt) {
  const Json tokenizer = read_tokenizer(model);
  const Json& text = at(model.settings, "text");
  std::string whole = text_at(text, "prefix") + prompt + text_at(text, "suffix");
  for (char c : whole)
    if (static_cast<unsigned char>(c) >= 0x80)
      throw Refused("This program's tokenizer reads ASCII only. Give the token ids with --ids.");
  for (const Json& added : at(tokenizer, "added_tokens").get<picojson::array>())
    if (whole.find(text_at(added, "content")) != std::string::npos)
      throw Refused("The prompt contains the special token " + text_at(added, "content") + ".");
  whole = normalized(whole, at(tokenizer, "normalizer"));
  const Json& words = at(tokenizer, "model");
  const Json& vocabulary = at(words, "vocab");
  const int unknown = number_at(vocabulary, text_at(words, "unk_token"));
  std::vector<int> ids;
  for (const std::string& word : split(whole))
    ids.push_back(vocabulary.contains(word) ? number_at(vocabulary, word) : unknown);
  const auto before = numbers_at(text, "before"), after = numbers_at(text, "after");
  const size_t length = number_at(text, "length");
  const size_t room = length - std::min(length, before.size() + after.size());
  if (ids.size() > room) {
    if (at(text, "cut_left").get<bool>())
      ids.erase(ids.begin(), ids.end() - room);
    else
      ids.resize(room);
  }
  ids.insert(ids.begin(), before.begin(), before.end());
  ids.insert(ids.end(), after.begin(), after.end());
  ids.resize(std::min(ids.size(), length));
  if (!at(text, "masked").get<bool>()) {
    const std::vector<int> padding(length - ids.size(), number_at(text, "pad_id"));
    ids.insert(at(text, "pad_left").get<bool>() ? ids.begin() : ids.end(), padding.begin(), padding.end());
  }
  return ids;
}

Arrays context_of(
    Export& model, const std::string& prompt, const std::optional<std::vector<int>>& ids) {
  const Json &settings = model.settings, &text = at(settings, "text");
  const int batch = numbers_at(at(settings, "noise"), "shape")[0];
  const int classes = number_at(settings, "classes");
  if (!text.is<picojson::object>()) {
    if (!classes && !prompt.empty())
      throw Refused("This model is unconditional: it takes no prompt. Leave it out.");
    if (!classes) return {};
    return {{"labels", mx::full({batch}, class_of(prompt, nullptr, classes), mx::int32)}};
  }
  if (text.contains("labels")) {
    const int channels = number_at(text, "channels");
    int place = class_of(prompt, &text.get("labels"), number_at(text, "classes"));
    const auto row = [&](int of) {
      auto one = mx::equal(mx::arange(channels), mx::array(of < 0 ? channels - 1 : of));
      return mx::reshape(mx::astype(one, mx::float32), {1, 1, channels});
    };
    return {{"caption", mx::repeat(row(place), batch, 0)}, {"null", row(-1)}};
  }
  const mx::array caption = features(model, ids ? *ids : tokenize(model, prompt));
  const mx::array null = features(model, numbers_at(text, "null_ids"));
  return {{"caption", mx::repeat(caption, batch, 0)}, {"null", null}};
}
