"""Publish and handle events with walrelay: copy this folder into your project."""
