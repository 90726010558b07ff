"""Priors around priors: tasks that change, tasks of several kinds, tasks that run together."""
