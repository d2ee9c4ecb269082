"""Llama and its relatives: Llama 2 to 3.2, Mistral, Qwen2, Qwen3."""
