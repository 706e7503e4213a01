import StarflowHost
import SwiftUI

@main
struct StarflowApp: App {
    var body: some Scene {
        WindowGroup { ContentView() }
    }
}

struct ContentView: View {
    @State private var prompt = "a fox in snow"
    @State private var seed: UInt64 = 7
    @State private var picture: CGImage?
    @State private var progress: Double?
    @State private var message: String?
    // The folder that `mlx-starflow export` wrote, as a resource of the app or as an argument.
    @State private var drawing = Drawing(directory: folder())

    var body: some View {
        VStack(spacing: 12) {
            if let picture {
                Image(decorative: picture, scale: 1)
                    .interpolation(.none)
                    .resizable()
                    .scaledToFit()
            } else {
                Rectangle().fill(.quaternary).aspectRatio(1, contentMode: .fit)
            }
            if let progress { ProgressView(value: progress) }
            if let message { Text(message).foregroundStyle(.red) }
            HStack {
                TextField("What to draw", text: $prompt)
                Button("Draw") { Task { await draw() } }
                    .keyboardShortcut(.defaultAction)
                    .disabled(progress != nil)
            }
        }
        .padding()
        .frame(minWidth: 360, minHeight: 420)
    }

    @MainActor private func draw() async {
        progress = 0
        message = nil
        do {
            picture = try await drawing.draw(prompt, seed: seed) { share in
                Task { @MainActor in progress = progress == nil ? nil : share }
            }
            seed += 1
        } catch {
            message = error.localizedDescription
        }
        progress = nil
    }
}

private func folder() -> URL {
    if CommandLine.arguments.count > 1 { return URL(filePath: CommandLine.arguments[1]) }
    return Bundle.main.resourceURL?.appending(path: "exported") ?? URL(filePath: "exported")
}
