"""Diffusion in the EDM form of SVD: noise levels, preconditioning, guidance, samplers."""
