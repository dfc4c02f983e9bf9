"""Cameras: poses, rays, paths, files. OpenCV axes and normalised intrinsics everywhere inside."""
