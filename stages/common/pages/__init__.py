"""What the HTML pages have in common: one file each, without scripts or network."""
