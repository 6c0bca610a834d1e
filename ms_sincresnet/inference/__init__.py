"""Model folders: writing them, and naming the genre of whole songs with them."""
