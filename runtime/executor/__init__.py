"""Running plans on devices: one program, or a group of replicas that share a batch."""
