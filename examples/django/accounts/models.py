from django.db import models


class Account(models.Model):
    username = models.CharField(max_length=100)
    email = models.EmailField()


class Note(models.Model):
    """What handlers have done."""

    handler = models.TextField()
    event_id = models.TextField()
    text = models.TextField()
