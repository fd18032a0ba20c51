"""URLs of the chat's pages."""

from django.urls import path

from chat import views
from chat.names import RoomConverter  # noqa: F401 - importing it registers <room:...>

app_name = "chat"

urlpatterns = [
    path("", views.room_list, name="rooms"),
    path("<room:room>/", views.room_page, name="room"),
]
