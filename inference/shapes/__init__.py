"""Request and answer shapes of the OpenAI surface."""
