"""The door under Meta's callbacks: how long an answer takes, and what an update costs."""
