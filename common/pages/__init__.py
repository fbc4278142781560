"""What all HTML pages share: drawing. No torch."""
