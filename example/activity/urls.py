"""URLs of the feed."""

from django.urls import path

from activity import views

app_name = "activity"

urlpatterns = [
    path("", views.feed, name="feed"),
    path("events/", views.events, name="events"),
]
