"""URLs of the pages about thumbnails."""

from django.urls import path

from thumbnails import views

app_name = "thumbnails"

urlpatterns = [
    path("", views.job_list, name="jobs"),
    path("<int:job>/", views.job_page, name="job"),
    path("<int:job>/retry/", views.retry, name="retry"),
    path("<int:job>/<int:size>.webp", views.thumbnail, name="thumbnail"),
]
