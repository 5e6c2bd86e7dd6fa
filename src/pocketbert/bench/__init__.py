"""How fast models run on this machine, here and in other engines, and how fast it could go."""
