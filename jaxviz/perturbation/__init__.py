"""How an image is changed: where patches lie, what they are made of, how they are pasted."""
