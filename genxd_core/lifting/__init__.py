"""Lifting views into 3D: Gaussians, their files, spherical harmonics, rasterisers."""
