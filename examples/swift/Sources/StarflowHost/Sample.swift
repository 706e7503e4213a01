import Foundation
import MLX

/// The loops of a step-wise export, and the one call of an export as one function.
struct Sampler {
    let export: Export
    let progress: (Double) -> Void  // share of the tokens that are done

    /// The picture (B, H, W, C) in about [-1, 1] from noise (B, h, w, c).
    func picture(noise: MLXArray, context: [String: MLXArray]) throws -> MLXArray {
        if export.has("picture") {
            let made = try export("picture", context.merging(["noise": noise]) { a, _ in a })
            eval(made)
            progress(1)
            return made[0]
        }
        let blocks = export.manifest.sampling.blocks
        var u = try export("layout.tokens", ["noise": noise])[0]
        for (index, block) in blocks.enumerated() {
            let found = try solved(block, turned(u, block), context) { share in
                progress((Double(index) + share) / Double(blocks.count))
            }
            u = turned(found, block)
            eval(u)
        }
        let latent = try export("layout.latent", ["tokens": u])[0]
        let picture = try decoded(denoised(latent, context))
        eval(picture)
        return picture
    }

    /// (B, T, D) from raster order into the block's order, or back.
    private func turned(_ tokens: MLXArray, _ block: Manifest.Block) -> MLXArray {
        guard block.flip else { return tokens }
        let last = Int32(tokens.dim(1) - 1)
        return take(tokens, MLXArray((0...last).reversed().map { $0 }), axis: 1)
    }

    private func solved(
        _ block: Manifest.Block, _ v: MLXArray, _ context: [String: MLXArray],
        told: (Double) -> Void
    ) throws -> MLXArray {
        let name = "block\(block.block)"
        let layers = block.layers
        let tokens = v.dim(1)
        var keys: [MLXArray]
        var values: [MLXArray]
        if block.begin {
            let made = try export("\(name).begin", context)
            keys = (0..<layers).map { made[2 * $0] }
            values = (0..<layers).map { made[2 * $0 + 1] }
        } else {
            let type = try Export.dtype(block.cache.dtype)
            keys = (0..<layers).map { _ in MLXArray.zeros(block.cache.shape, dtype: type) }
            values = (0..<layers).map { _ in MLXArray.zeros(block.cache.shape, dtype: type) }
        }
        var previous = MLXArray.zeros([v.dim(0), 1, v.dim(2)])
        var done: [MLXArray] = []
        for t in 0..<tokens {
            let number = MLXArray(Int32(t))
            let start = context.merging(["previous": previous, "t": number]) { _, new in new }
            var hidden = try export("\(name).step.start", start)[0]
            for j in 0..<layers {
                let out = try export(
                    "\(name).step.layer\(j)",
                    ["hidden": hidden, "t": number, "keys": keys[j], "values": values[j]])
                hidden = out[0]
                keys[j] = out[1]
                values[j] = out[2]
            }
            let affine = try export("\(name).step.finish", ["hidden": hidden, "t": number])
            previous = affine[0] * v[0..., t..<(t + 1)] + affine[1]
            done.append(previous)
            asyncEval(keys + values + [previous])
            if t % 16 == 15 {
                eval(previous)
                told(Double(t + 1) / Double(tokens))
            }
        }
        return concatenated(done, axis: 1)
    }

    /// The residual stream before every layer, and after the last.
    private func through(
        _ block: Manifest.Block, _ what: String, _ given: [String: MLXArray]
    ) throws -> [MLXArray] {
        let name = "block\(block.block).\(what)"
        var hidden = try export("\(name).start", given)
        for j in 0..<block.layers {
            hidden += try export("\(name).layer\(j)", ["hidden": hidden[j]])
            eval(hidden[j + 1])
        }
        return hidden
    }

    /// How exact tokens u (B, T, D) of a block are: max |sigma v + b - u| of a parallel pass.
    func residual(
        _ block: Manifest.Block, u: MLXArray, v: MLXArray, context: [String: MLXArray]
    ) throws -> Float {
        let given = context.merging(["tokens": u]) { a, _ in a }
        let hidden = try through(block, "certificate", given)
        let affine = try export("block\(block.block).certificate.finish", ["hidden": hidden.last!])
        return abs(affine[0] * v + affine[1] - u).max().item(Float.self)
    }

    private func denoised(_ latent: MLXArray, _ context: [String: MLXArray]) throws -> MLXArray {
        let settings = export.manifest.denoising
        guard let method = settings.method else { return latent }
        if method == "learned" {
            return try export("denoise", context.merging(["latent": latent]) { a, _ in a })[0]
        }
        var passed: [(block: Manifest.Block, u: MLXArray, hidden: [MLXArray])] = []
        var u = try export("layout.raw_tokens", ["latent": latent])[0]
        for block in export.manifest.sampling.blocks.reversed() {
            u = turned(u, block)
            let hidden = try through(block, "forward", context.merging(["tokens": u]) { a, _ in a })
            passed.append((block, u, hidden))
            let end = ["hidden": hidden.last!, "tokens": u]
            let v = try export("block\(block.block).forward.finish", end)[0]
            eval(v)
            u = turned(v, block)
        }
        var slope = -u  // of the logarithm of the prior
        while let (block, u, hidden) = passed.popLast() {
            let name = "block\(block.block).backward"
            let end = ["hidden": hidden.last!, "tokens": u, "slope": turned(slope, block)]
            let last = try export("\(name).finish", end)
            var inner = last[0]
            for j in (0..<block.layers).reversed() {
                inner = try export("\(name).layer\(j)", ["hidden": hidden[j], "slope": inner])[0]
                eval(inner, last[1])
            }
            let given = context.merging(["tokens": u, "slope": inner, "direct": last[1]]) { a, _ in a }
            slope = turned(try export("\(name).start", given)[0], block)
            eval(slope)
        }
        let square = Float(settings.noise_std * settings.noise_std)
        return latent + square * (try export("layout.latent", ["tokens": slope])[0])
    }

    private func decoded(_ latent: MLXArray) throws -> MLXArray {
        let settings = export.manifest.decoder
        if settings.kind == "pixels" { return latent }
        if settings.kind == "whole" { return try export("decode", ["latent": latent])[0] }
        guard let factor = settings.factor, let tile = settings.tile, let rows = settings.rows,
            let columns = settings.columns
        else { throw Refused("export.json says nothing about the tiles.") }
        let pictures = try (0..<latent.dim(0)).map { i in
            try inTiles(latent[i..<(i + 1)], factor, tile, rows, columns)
        }
        return concatenated(pictures, axis: 0)
    }

    private func inTiles(
        _ latent: MLXArray, _ factor: Int, _ tile: [Int], _ rows: [Int], _ columns: [Int]
    ) throws -> MLXArray {
        let cells = try export("decode.middle", ["latent": latent])[0]
        let (high, wide) = (tile[0] * factor, tile[1] * factor)
        let total = MLXArray.zeros([1, cells.dim(1) * factor, cells.dim(2) * factor, 3])
        let weights = MLXArray.zeros([1, cells.dim(1) * factor, cells.dim(2) * factor, 1])
        for (i, row) in rows.enumerated() {
            for (j, column) in columns.enumerated() {
                let part = cells[0..., row..<(row + tile[0]), column..<(column + tile[1])]
                let pixels = try export("decode.upper", ["cells": part])[0]
                let down = ramp(i, high, rows, factor).reshaped([1, high, 1, 1])
                let weight = down * ramp(j, wide, columns, factor).reshaped([1, 1, wide, 1])
                let (y, x) = (row * factor, column * factor)
                let area = total[0..., y..<(y + high), x..<(x + wide)]
                total[0..., y..<(y + high), x..<(x + wide)] = area + weight * pixels
                let sums = weights[0..., y..<(y + high), x..<(x + wide)]
                weights[0..., y..<(y + high), x..<(x + wide)] = sums + weight
                eval(total, weights)
            }
        }
        return total / weights
    }

    /// Blending weights (size,) of the tile that begins at starts[place].
    private func ramp(_ place: Int, _ size: Int, _ starts: [Int], _ factor: Int) -> MLXArray {
        var weight = [Float](repeating: 1, count: size)
        for k in 0..<size {
            let index = Float(k) + 0.5
            if place > 0 {
                let shared = Float((starts[place - 1] - starts[place]) * factor + size)
                weight[k] = min(weight[k], index / shared)
            }
            if place + 1 < starts.count {
                let shared = Float((starts[place] - starts[place + 1]) * factor + size)
                weight[k] = min(weight[k], (Float(size) - index) / shared)
            }
        }
        return MLXArray(weight)
    }
}
