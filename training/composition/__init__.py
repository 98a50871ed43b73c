"""Machine-like sources and noises for training, composed of recordings and of made-up sound."""
