"""The demo page and the HTML report."""
