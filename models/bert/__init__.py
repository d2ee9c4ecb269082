"""BERT encoders and sentence embeddings."""
