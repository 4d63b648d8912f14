"""Base models: a small one trained from scratch, or a pretrained one, loaded with quantisation."""
