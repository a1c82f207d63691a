//! Model providers over HTTP: the OpenAI-compatible chat codec.
