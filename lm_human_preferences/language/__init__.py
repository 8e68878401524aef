"""Text and the language model: encodings, GPT-2, sampling, model folders."""
