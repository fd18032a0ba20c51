"""The pages of the site. Each app brings its own ``urls``; config/asgi.py does the same for WebSockets."""

from django.conf import settings
from django.urls import include, path
from django.views.generic import RedirectView

from chat.views import announce

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="chat:rooms")),
    path("chat/", include("chat.urls")),
    # Beside the rooms: below chat/ it would be a room's address.
    path("announce/", announce, name="announce"),
    path("activity/", include("activity.urls")),
    *([path("thumbnails/", include("thumbnails.urls"))] if settings.HAS_TASKS else []),
]
