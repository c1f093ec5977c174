"""Adversarial losses by name: each is a file of this folder with `discriminator_loss` and `generator_loss`."""
