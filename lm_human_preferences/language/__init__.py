"""Text and the language model: encodings, data sets, GPT-2, sampling."""
