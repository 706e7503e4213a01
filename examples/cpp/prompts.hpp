// From a prompt to what the functions of an export take.
#pragma once

#include <optional>

#include "export.hpp"

// caption (B, L, D) and null (1, L, D), or labels (B,), or nothing. `ids`: the prompt's token ids,
// special tokens included, instead of its text.
Arrays context_of(
    Export& model, const std::string& prompt, const std::optional<std::vector<int>>& ids);

// Token ids of a prompt, special tokens included, by a tokenizer that is a list of words.
std::vector<int> tokenize(const Export& model, const std::string& prompt);
