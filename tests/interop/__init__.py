"""Replyline beside what a team that has BullMQ already runs: a NestJS application, and bull-board."""
