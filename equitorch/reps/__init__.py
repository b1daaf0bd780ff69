"""What a feature is: how its components change when space is rotated or mirrored."""
