"""Operations for MLflow that wait on disk until it can be reached again.

`besom.spool.client` writes into a run, or on disk where MLflow does not answer; `besom.spool.deliver` brings it what
waits. Knows nothing of studies.
"""
