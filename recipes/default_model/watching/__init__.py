"""Measurements of ``watch``: false alarms, detection, localisation."""
