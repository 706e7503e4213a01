// swift-tools-version: 6.0
import PackageDescription

let package = Package(
    name: "StarflowHost",
    platforms: [.macOS(.v14), .iOS(.v17)],
    products: [
        .library(name: "StarflowHost", targets: ["StarflowHost"]),
        .executable(name: "StarflowApp", targets: ["StarflowApp"]),
    ],
    dependencies: [
        // Pinned: exports are read by one version of MLX only. When this changes, change
        // `Export.mlxVersion` to the version of MLX that it contains, and export again with it.
        .package(url: "https://github.com/ml-explore/mlx-swift", exact: "0.32.3"),
        .package(url: "https://github.com/huggingface/swift-transformers", exact: "1.3.0"),
    ],
    targets: [
        .target(
            name: "StarflowHost",
            dependencies: [
                .product(name: "MLX", package: "mlx-swift"),
                .product(name: "Tokenizers", package: "swift-transformers"),
            ]),
        .executableTarget(name: "StarflowApp", dependencies: ["StarflowHost"]),
    ],
    swiftLanguageModes: [.v5]
)
