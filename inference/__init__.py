"""The sidecar: checks a commit out of the registry and answers OpenAI calls with it."""
