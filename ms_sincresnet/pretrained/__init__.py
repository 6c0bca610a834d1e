"""Model folders, the Hub, and what is rendered for them."""
