"""A small Llama that writes like Shakespeare; its weights are here."""
