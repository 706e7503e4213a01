import CryptoKit
import Foundation
import MLX

/// A sentence for the user.
public struct Refused: LocalizedError {
    let sentence: String
    init(_ sentence: String) { self.sentence = sentence }
    public var errorDescription: String? { sentence }
}

/// An export of mlx-starflow: its settings, and its functions by name.
///
/// An imported function belongs to the thread that first called it: use an `Export` in one thread
/// (see `Worker`).
public final class Export {
    /// The version of MLX inside the pinned mlx-swift, which does not tell it at run time.
    static let mlxVersion = "0.32.3"

    let directory: URL
    let manifest: Manifest
    private var files: [String: ImportedFunction] = [:]

    /// Reads export.json and compares format, fingerprint, version, device and the checksums of all
    /// files, before anything is run.
    public init(directory: URL) throws {
        self.directory = directory
        let place = directory.appending(path: "export.json")
        guard let data = try? Data(contentsOf: place) else {
            throw Refused("\(place.path) is missing: this folder is no export.")
        }
        do {
            manifest = try JSONDecoder().decode(Manifest.self, from: data)
        } catch {
            throw Refused("\(place.path) is not an export of mlx-starflow (\(error)).")
        }
        guard manifest.format == "mlx-starflow export" else {
            throw Refused("\(place.path) is not an export of mlx-starflow.")
        }
        guard manifest.format_version == 1 else {
            throw Refused("\(place.path) has a format that this app does not know.")
        }
        let mark = Data("\n  \"fingerprint\": \"".utf8)
        guard let end = data.range(of: mark, options: .backwards)?.lowerBound,
            Export.hex(SHA256.hash(data: data[..<end])) == manifest.fingerprint
        else {
            throw Refused(
                "\(place.path) was changed after it was written: its fingerprint is of other "
                    + "content. Export the model again.")
        }
        guard manifest.mlx_version == Export.mlxVersion else {
            throw Refused(
                "The export was made with MLX \(manifest.mlx_version), but this app runs MLX "
                    + "\(Export.mlxVersion). Export the model again.")
        }
        let own = Device.defaultDevice().deviceType == .gpu ? "gpu" : "cpu"
        guard manifest.device == own else {
            throw Refused(
                "The export was made for the \(manifest.device), but this app runs on the \(own). "
                    + "Export the model again.")
        }
        for (name, file) in manifest.files {
            try Export.check(directory.appending(path: name), file)
        }
        for (name, entry) in manifest.functions where manifest.files[entry.file] == nil {
            throw Refused("export.json: the file of \(name) is not among its files.")
        }
    }

    func has(_ function: String) -> Bool { manifest.functions[function] != nil }

    /// The outputs of a function. `given` has at least its inputs.
    func callAsFunction(_ function: String, _ given: [String: MLXArray]) throws -> [MLXArray] {
        guard let entry = manifest.functions[function] else {
            throw Refused("This export has no function \(function).")
        }
        let pairs = try entry.inputs.map { input -> (String, MLXArray) in
            guard let value = given[input.name] else {
                throw Refused("\(function) needs \(input.name).")
            }
            guard value.shape == input.shape || entry.every_length == true else {
                throw Refused(
                    "\(input.name) has shape \(value.shape); the export takes \(input.shape).")
            }
            return ("\(function).\(input.name)", value.asType(try Export.dtype(input.dtype)))
        }
        let run = try file(entry.file)
        // Keywords are known only here, and `KeyValuePairs` is made of literals.
        switch pairs.count {
        case 1:
            return try run.dynamicallyCall(withKeywordArguments: [pairs[0].0: pairs[0].1])
        case 2:
            return try run.dynamicallyCall(withKeywordArguments: [
                pairs[0].0: pairs[0].1, pairs[1].0: pairs[1].1,
            ])
        case 3:
            return try run.dynamicallyCall(withKeywordArguments: [
                pairs[0].0: pairs[0].1, pairs[1].0: pairs[1].1, pairs[2].0: pairs[2].1,
            ])
        case 4:
            return try run.dynamicallyCall(withKeywordArguments: [
                pairs[0].0: pairs[0].1, pairs[1].0: pairs[1].1, pairs[2].0: pairs[2].1,
                pairs[3].0: pairs[3].1,
            ])
        default:
            throw Refused("\(function) has \(pairs.count) inputs; at most 4 are called here.")
        }
    }

    private func file(_ name: String) throws -> ImportedFunction {
        if let known = files[name] { return known }
        let made = try importFunction(from: directory.appending(path: name))
        files[name] = made
        return made
    }

    static func dtype(_ name: String) throws -> DType {
        switch name {
        case "float32": return .float32
        case "float16": return .float16
        case "bfloat16": return .bfloat16
        case "int32": return .int32
        default: throw Refused("export.json names the dtype \(name), which this app does not know.")
        }
    }

    private static func check(_ url: URL, _ expected: Manifest.File) throws {
        guard let handle = try? FileHandle(forReadingFrom: url) else {
            throw Refused("\(url.path) is missing. Export the model again.")
        }
        defer { try? handle.close() }
        var sum = SHA256()
        var bytes = 0
        while let piece = try handle.read(upToCount: 1 << 22), !piece.isEmpty {
            sum.update(data: piece)
            bytes += piece.count
        }
        guard bytes == expected.bytes, hex(sum.finalize()) == expected.sha256 else {
            throw Refused("\(url.path) is incomplete or was changed. Export the model again.")
        }
    }

    private static func hex(_ digest: SHA256.Digest) -> String {
        digest.map { String(format: "%02x", $0) }.joined()
    }
}
