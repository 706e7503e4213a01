"""One request from prompt to pixels: settings, components, memory, events, result."""
