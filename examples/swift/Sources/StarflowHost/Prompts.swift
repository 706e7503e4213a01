import Foundation
import MLX
import Tokenizers

/// From a prompt to what the functions of an export take.
struct Prompts {
    let export: Export
    private let encode: ((String) -> [Int])?  // without special tokens

    init(export: Export) async throws {
        self.export = export
        guard let path = export.manifest.text?.tokenizer else {
            encode = nil
            return
        }
        let file = export.directory.appending(path: path)
        if let words = try WordList(file: file) {
            encode = words.encode
        } else {
            let folder = file.deletingLastPathComponent()
            let tokenizer = try await AutoTokenizer.from(modelFolder: folder)
            encode = { tokenizer.encode(text: $0, addSpecialTokens: false) }
        }
    }

    /// caption (B, L, D) and null (1, L, D), or labels (B,), or nothing.
    func context(_ prompt: String) throws -> [String: MLXArray] {
        let batch = export.manifest.noise.shape[0]
        guard let text = export.manifest.text else {
            let classes = export.manifest.classes
            if classes == 0 { return [:] }
            let label = Int32(try number(prompt, below: classes))
            return ["labels": MLXArray([Int32](repeating: label, count: batch))]
        }
        let caption: MLXArray
        let null: MLXArray
        if let labels = text.labels {
            let classes = text.classes ?? labels.count
            let place = try labels.firstIndex(of: prompt) ?? number(prompt, below: classes)
            caption = oneHot(place < 0 ? text.channels - 1 : place, text.channels)
            null = oneHot(text.channels - 1, text.channels)
        } else {
            caption = try features(ids(prompt, text), text)
            null = try features(text.null_ids ?? [], text)
        }
        return ["caption": repeated(caption, count: batch, axis: 0), "null": null]
    }

    private func ids(_ prompt: String, _ text: Manifest.Text) throws -> [Int] {
        guard let encode else { throw Refused("This export has no tokenizer.") }
        let before = text.before ?? []
        let after = text.after ?? []
        var ids = encode((text.prefix ?? "") + prompt + (text.suffix ?? ""))
        let room = max(0, text.length - before.count - after.count)
        if ids.count > room {
            ids = Array(text.cut_left == true ? ids.suffix(room) : ids.prefix(room))
        }
        ids = Array((before + ids + after).prefix(text.length))
        if text.masked != true {
            let padding = [Int](repeating: text.pad_id ?? 0, count: text.length - ids.count)
            ids = text.pad_left == true ? padding + ids : ids + padding
        }
        return ids
    }

    private func features(_ ids: [Int], _ text: Manifest.Text) throws -> MLXArray {
        if ids.isEmpty { return MLXArray.zeros([1, text.length, text.channels]) }
        let made = try export("text", ["ids": MLXArray(ids.map { Int32($0) })])[0]
        return made.reshaped([1, text.length, text.channels])
    }

    private func oneHot(_ place: Int, _ channels: Int) -> MLXArray {
        var row = [Float](repeating: 0, count: channels)
        row[place] = 1
        return MLXArray(row, [1, 1, channels])
    }

    private func number(_ prompt: String, below classes: Int) throws -> Int {
        if prompt.isEmpty { return -1 }
        guard let number = Int(prompt), (0..<classes).contains(number) else {
            throw Refused("\(prompt) is not a class of this model.")
        }
        return number
    }
}

/// A tokenizer that is a list of words, as the embedded model's; swift-transformers has none.
struct WordList {
    private let vocabulary: [String: Int]
    private let unknown: Int
    private let steps: [[String: Any]]

    /// nil for a tokenizer of another kind. Throws for a normalizer that is not known here.
    init?(file: URL) throws {
        let parsed = try JSONSerialization.jsonObject(with: Data(contentsOf: file))
        guard let tokenizer = parsed as? [String: Any],
            let model = tokenizer["model"] as? [String: Any],
            model["type"] as? String == "WordLevel",
            let vocabulary = model["vocab"] as? [String: Int],
            let unknown = vocabulary[model["unk_token"] as? String ?? ""]
        else { return nil }
        self.vocabulary = vocabulary
        self.unknown = unknown
        let normalizer = tokenizer["normalizer"] as? [String: Any] ?? [:]
        steps = normalizer["normalizers"] as? [[String: Any]] ?? (normalizer.isEmpty ? [] : [normalizer])
        for step in steps {
            let type = step["type"] as? String ?? ""
            guard ["NFKC", "Lowercase", "Replace"].contains(type) else {
                throw Refused("The tokenizer has the normalizer \(type), which is not known here.")
            }
        }
    }

    /// The normalizers, then runs of word characters and of other visible ones.
    func encode(_ text: String) -> [Int] {
        let plain = steps.reduce(text, WordList.applied)
        let pattern = try! NSRegularExpression(pattern: #"\w+|[^\w\s]+"#)
        let whole = NSRange(plain.startIndex..., in: plain)
        return pattern.matches(in: plain, range: whole).map { match in
            vocabulary[String(plain[Range(match.range, in: plain)!])] ?? unknown
        }
    }

    private static func applied(_ text: String, _ step: [String: Any]) -> String {
        switch step["type"] as? String {
        case "NFKC": return text.precomposedStringWithCompatibilityMapping
        case "Lowercase": return text.lowercased()
        default: break
        }
        let pattern = step["pattern"] as? [String: String] ?? [:]
        let content = step["content"] as? String ?? ""
        if let exact = pattern["String"] {
            return text.replacingOccurrences(of: exact, with: content)
        }
        guard let written = pattern["Regex"],
            let regex = try? NSRegularExpression(pattern: written)
        else { return text }
        let template = NSRegularExpression.escapedTemplate(for: content)
        let whole = NSRange(text.startIndex..., in: text)
        return regex.stringByReplacingMatches(in: text, range: whole, withTemplate: template)
    }
}
