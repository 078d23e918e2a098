"""Occlusion: how the scores change when part of an image is hidden."""
