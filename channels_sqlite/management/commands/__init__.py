"""Thin: each parses, calls a plain class, and prints."""

from __future__ import annotations

__all__: list[str] = []
