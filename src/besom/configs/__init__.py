"""From Hydra's YAML to typed dataclasses: composing, projects, snapshots."""
