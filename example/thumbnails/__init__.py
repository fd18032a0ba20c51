"""Thumbnails of uploaded pictures, made by worker processes while the pages watch."""
