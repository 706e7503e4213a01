import CoreGraphics
import Foundation
import MLX

/// Draws pictures by an export, in a thread of its own.
public final class Drawing: @unchecked Sendable {
    private let worker = Worker()
    private var export: Export?
    private var prompts: Prompts?
    private let directory: URL

    public init(directory: URL) { self.directory = directory }

    /// Opens the export: throws a sentence if it does not fit this app.
    public func open() async throws {
        let made = try await worker.run { [directory] in try Export(directory: directory) }
        prompts = try await Prompts(export: made)
        export = made
    }

    /// The first picture for a prompt and a seed. `progress` is called in the worker's thread.
    public func draw(
        _ prompt: String, seed: UInt64, progress: @escaping @Sendable (Double) -> Void
    ) async throws -> CGImage {
        if export == nil { try await open() }
        guard let export, let prompts else { throw Refused("The export is not open.") }
        return try await worker.run {
            let shape = export.manifest.noise.shape
            // One seed per picture: the noise of Python's seeds.
            let rows = (0..<shape[0]).map { i in
                MLXRandom.normal(Array(shape.dropFirst()), key: MLXRandom.key(seed + UInt64(i)))
            }
            let context = try prompts.context(prompt)
            let sampler = Sampler(export: export, progress: progress)
            let picture = try sampler.picture(noise: stacked(rows, axis: 0), context: context)
            return try image(of: picture[0])
        }
    }
}

/// A picture (H, W, C) in about [-1, 1], C being 3 or 1.
private func image(of picture: MLXArray) throws -> CGImage {
    let levels = MLX.round(255 * clip((picture.asType(.float32) + 1) / 2, min: 0, max: 1))
    let (height, width, channels) = (picture.dim(0), picture.dim(1), picture.dim(2))
    let bytes = levels.asType(.uint8).asArray(UInt8.self)
    let space = channels == 1 ? CGColorSpaceCreateDeviceGray() : CGColorSpaceCreateDeviceRGB()
    guard let provider = CGDataProvider(data: Data(bytes) as CFData),
        let made = CGImage(
            width: width, height: height, bitsPerComponent: 8, bitsPerPixel: 8 * channels,
            bytesPerRow: width * channels, space: space, bitmapInfo: CGBitmapInfo(rawValue: 0),
            provider: provider, decode: nil, shouldInterpolate: false, intent: .defaultIntent)
    else { throw Refused("The picture cannot be shown.") }
    return made
}

/// One thread for all work of MLX: an imported function runs only in the thread that opened it.
final class Worker: @unchecked Sendable {
    private let condition = NSCondition()
    private var waiting: [() -> Void] = []

    init() {
        let thread = Thread { [self] in
            while true {
                condition.lock()
                while waiting.isEmpty { condition.wait() }
                let next = waiting.removeFirst()
                condition.unlock()
                next()
            }
        }
        thread.stackSize = 8 << 20
        thread.start()
    }

    func run<T>(_ work: @escaping () throws -> T) async throws -> T {
        try await withCheckedThrowingContinuation { continuation in
            condition.lock()
            waiting.append { continuation.resume(with: Result { try work() }) }
            condition.signal()
            condition.unlock()
        }
    }
}
