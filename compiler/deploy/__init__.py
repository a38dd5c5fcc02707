"""Bundles on devices: copied there and tried, or packed for an app."""
