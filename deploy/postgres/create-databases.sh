#!/bin/sh
# Makes the two databases: studies are in `optuna`, runs in `mlflow`. The image of PostgreSQL runs this once, when its
# volume is empty, as the user of the server. It must stay executable: the image would else read it into its own shell.
set -eu

for database in optuna mlflow; do
    createdb --username="$POSTGRES_USER" --no-password "$database"
done
