"""Serve the demo page and write the HTML report."""
