"""How many experts images use, and what that costs."""
