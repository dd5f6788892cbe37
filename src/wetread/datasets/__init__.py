"""Tables of images: import, check, split; and synthetic studies."""
