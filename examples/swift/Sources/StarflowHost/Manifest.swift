import Foundation

/// What a host reads of `export.json`.
struct Manifest: Decodable {
    struct Input: Decodable {
        let name: String
        let shape: [Int]
        let dtype: String
    }
    struct Function: Decodable {
        let file: String
        let inputs: [Input]
        let every_length: Bool?
    }
    struct File: Decodable {
        let bytes: Int
        let sha256: String
    }
    struct Noise: Decodable {
        let shape: [Int]  // (B, h, w, c)
    }
    struct Cache: Decodable {
        let shape: [Int]
        let dtype: String
    }
    struct Block: Decodable {
        let block: Int
        let layers: Int
        let flip: Bool
        let begin: Bool
        let cache: Cache
    }
    struct Sampling: Decodable {
        let blocks: [Block]  // in the order of sampling
    }
    struct Denoising: Decodable {
        let method: String?  // "score", "learned" or none
        let noise_std: Double
    }
    struct Decoder: Decodable {
        let kind: String  // "pixels", "whole", "tiles" or "none"
        let factor: Int?
        let tile: [Int]?
        let rows: [Int]?
        let columns: [Int]?
    }
    struct Text: Decodable {
        let length: Int
        let channels: Int
        let labels: [String]?
        let classes: Int?
        let tokenizer: String?
        let prefix: String?
        let suffix: String?
        let before: [Int]?
        let after: [Int]?
        let null_ids: [Int]?
        let masked: Bool?
        let pad_id: Int?
        let pad_left: Bool?
        let cut_left: Bool?
    }

    let format: String
    let format_version: Int
    let mlx_version: String
    let device: String
    let what: String
    let width: Int
    let height: Int
    let noise: Noise
    let denoising: Denoising
    let classes: Int
    let text: Text?
    let sampling: Sampling
    let decoder: Decoder
    let functions: [String: Function]
    let files: [String: File]
    let fingerprint: String
}
