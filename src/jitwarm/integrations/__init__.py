"""What jitwarm works with: servers that it warms, each of which finds us in its own way, and clusters that build for it."""
