"""The worker: runs the jobs of the queues (execute), looks for work that fell through (sweeper), and stops without losing any."""
