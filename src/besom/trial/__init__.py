"""The trial world: one configuration, trained and recorded. Never imports Optuna."""
